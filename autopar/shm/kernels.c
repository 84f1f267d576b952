/* Collectives over shared memory: the protocol and the reductions, in plain C11 without torch.
 *
 * Every rank owns a control block, which it alone writes and all map. To start operation k a rank
 * writes a descriptor into its ring and then sets `posted` to k. Once all ranks have posted k, each
 * works on its share of it and then sets its `finished` to k; k is complete when all have finished.
 * Shares of an operation never overlap, and operations are worked on in order, so there are no locks.
 *
 * layout.py describes the same structs for Python; autopar_layout() lets it check that both agree.
 */

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_RANKS 64
#define MAX_SEGMENTS 512
#define RING 64
#define BLOCK 2048 /* elements reduced at a time: the accumulator stays in the first-level cache */

enum kind { BARRIER, ALL_REDUCE, BROADCAST, ALL_GATHER, REDUCE_SCATTER };
enum operator { SUM, AVG, MIN, MAX, PRODUCT };
enum dtype { FLOAT32 = 1, FLOAT64, BFLOAT16, FLOAT16, INT8, INT16, INT32, INT64, UINT8 };
enum status { DONE, PENDING, MISMATCH, UNMAPPED, LEFT };

/* What one rank brings to one operation. All but `segment` and `offset` is equal on all ranks. */
typedef struct {
    uint64_t count;  /* elements; of each rank's part in all-gather and reduce-scatter */
    double scale;    /* factor on every term before it is reduced */
    int32_t kind, operator, dtype, element_size, root, reserved;
    char label[144]; /* what the message carries, for errors; padded with zeros */
    uint64_t segment, offset;
} descriptor;

typedef struct {
    _Alignas(64) uint64_t posted;
    _Alignas(64) uint64_t finished;
    _Alignas(64) uint64_t left; /* not 0: takes part no more */
    char identity[64];
    char farewell[512];
    int64_t segment_fds[MAX_SEGMENTS];
    _Alignas(64) descriptor ring[RING];
} control;

typedef struct {
    int rank, size;
    unsigned spins;
    uint64_t next; /* the operation whose share is to be done next */
    int lacking_rank, lacking_segment;
    control *controls[MAX_RANKS];
    char *segments[MAX_RANKS][MAX_SEGMENTS];
} transport;

static uint64_t acquire(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
static void release(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

/* -- numbers of 16 bits: every result is rounded to nearest even, as torch rounds ------------------- */

static inline float bfloat16_to_float(uint16_t value) {
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, 4);
    return result;
}

static inline uint16_t float_to_bfloat16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return value != value ? 0x7fc0 : (uint16_t)rounded;
}

#ifdef __FLT16_MAX__
static inline float float16_to_float(uint16_t value) {
    _Float16 half;
    memcpy(&half, &value, 2);
    return (float)half;
}

static inline uint16_t float_to_float16(float value) {
    _Float16 half = (_Float16)value;
    uint16_t result;
    memcpy(&result, &half, 2);
    return result;
}
#else
static inline float float16_to_float(uint16_t value) {
    uint32_t sign = (uint32_t)(value & 0x8000) << 16, magnitude = (uint32_t)(value & 0x7fff) << 13, bits;
    float result;
    if (magnitude >= 0x7c00u << 13) {
        bits = magnitude + 0x70000000; /* infinity and NaN */
    } else {
        float scaled; /* exact, subnormals included: the exponent's bias differs by 112 */
        memcpy(&scaled, &magnitude, 4);
        scaled *= 0x1p112f;
        memcpy(&bits, &scaled, 4);
    }
    bits |= sign;
    memcpy(&result, &bits, 4);
    return result;
}

static inline uint16_t float_to_float16(float value) {
    uint32_t bits, magnitude;
    memcpy(&bits, &value, 4);
    uint16_t sign = (uint16_t)((bits >> 16) & 0x8000);
    magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return sign | 0x7e00;
    if (magnitude >= 0x477ff000) return sign | 0x7c00; /* rounds to infinity */
    if (magnitude < 0x38800000) {                      /* subnormal: let the addition round */
        float absolute;
        memcpy(&absolute, &magnitude, 4);
        absolute += 0.5f;
        memcpy(&magnitude, &absolute, 4);
        return sign | (uint16_t)(magnitude - 0x3f000000);
    }
    return sign | (uint16_t)((magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13);
}
#endif

/* -- reductions ---------------------------------------------------------------------------------------
 *
 * A rank's share is combined from the rank before it downwards, itself last: the order of gloo's ring
 * (gloo/allreduce.cc), so that sums have gloo's bits. One rank computes a share for all, so all get the same.
 */

#define AS_IT_IS(value) (value)
#define EACH for (size_t i = 0; i < length; i++)

/* STORED is the type in memory, WIDE the one that is computed in; LOAD and STORE convert. */
#define REDUCTION(NAME, STORED, WIDE, LOAD, STORE)                                                                \
    static void reduce_##NAME(                                                                                    \
        int operator, double scale, int size, char *const *buffers, size_t first, size_t last, bool all, int own) \
    {                                                                                                             \
        WIDE total[BLOCK], term[BLOCK];                                                                           \
        const WIDE factor = (WIDE)scale;                                                                          \
        for (size_t start = first; start < last; start += BLOCK) {                                                \
            const size_t length = last - start < BLOCK ? last - start : BLOCK;                                    \
            for (int turn = 0; turn < size; turn++) {                                                             \
                const STORED *source = (const STORED *)buffers[(own + size - 1 - turn) % size] + start;           \
                WIDE *into = turn == 0 ? total : term;                                                            \
                if (scale == 1.0) {                                                                               \
                    EACH into[i] = LOAD(source[i]);                                                               \
                } else {                                                                                          \
                    EACH into[i] = LOAD(STORE(LOAD(source[i]) * factor));                                         \
                }                                                                                                 \
                if (turn == 0) continue;                                                                          \
                switch (operator) {                                                                               \
                case SUM:                                                                                         \
                case AVG: EACH total[i] = LOAD(STORE(total[i] + term[i])); break;                                 \
                case PRODUCT: EACH total[i] = LOAD(STORE(total[i] * term[i])); break;                             \
                case MIN: EACH total[i] = term[i] < total[i] ? term[i] : total[i]; break;                         \
                default: EACH total[i] = term[i] > total[i] ? term[i] : total[i]; break;                          \
                }                                                                                                 \
            }                                                                                                     \
            if (operator == AVG) EACH total[i] = total[i] / (WIDE)size;                                            \
            for (int rank = all ? 0 : own; rank < (all ? size : own + 1); rank++) {                               \
                STORED *target = (STORED *)buffers[rank] + start;                                                 \
                EACH target[i] = STORE(total[i]);                                                                 \
            }                                                                                                     \
        }                                                                                                         \
    }

REDUCTION(float32, float, float, AS_IT_IS, AS_IT_IS)
REDUCTION(float64, double, double, AS_IT_IS, AS_IT_IS)
REDUCTION(bfloat16, uint16_t, float, bfloat16_to_float, float_to_bfloat16)
REDUCTION(float16, uint16_t, float, float16_to_float, float_to_float16)
REDUCTION(int8, int8_t, int8_t, AS_IT_IS, (int8_t))
REDUCTION(int16, int16_t, int16_t, AS_IT_IS, (int16_t))
REDUCTION(int32, int32_t, int32_t, AS_IT_IS, AS_IT_IS)
REDUCTION(int64, int64_t, int64_t, AS_IT_IS, AS_IT_IS)
REDUCTION(uint8, uint8_t, uint8_t, AS_IT_IS, (uint8_t))

/* Reduces the elements [first, last) of all buffers, into all of them or into this rank's own. */
static void reduce(const descriptor *what, int size, char *const *buffers, size_t first, size_t last, bool all, int own)
{
#define CASE(DTYPE, NAME) \
    case DTYPE: reduce_##NAME(what->operator, what->scale, size, buffers, first, last, all, own); break;
    switch (what->dtype) {
        CASE(FLOAT32, float32)
        CASE(FLOAT64, float64)
        CASE(BFLOAT16, bfloat16)
        CASE(FLOAT16, float16)
        CASE(INT8, int8)
        CASE(INT16, int16)
        CASE(INT32, int32)
        CASE(INT64, int64)
        CASE(UINT8, uint8)
    }
}

/* -- the protocol --------------------------------------------------------------------------------- */

static size_t smaller(size_t one, size_t other) { return one < other ? one : other; }

static size_t rounded_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

/* Elements of a rank's share of an all-reduce; the last shares may have fewer. As gloo divides them. */
static size_t share(size_t count, size_t element_size, size_t size)
{
    const size_t bytes = count * element_size, needed = rounded_up(bytes, 1 << 20) >> 20; /* of 1 MiB at most */
    const size_t segments = rounded_up(needed > 2 * size ? needed : 2 * size, size);
    return segments / size * (rounded_up((bytes + segments - 1) / segments, element_size) / element_size);
}

/* Does this rank's share of an operation that all ranks have posted. */
static void work(const transport *t, const descriptor *what, char *const *buffers)
{
    const size_t count = what->count, rank = (size_t)t->rank, bytes = count * (size_t)what->element_size;
    switch (what->kind) {
    case ALL_REDUCE: {
        const size_t part = count ? share(count, (size_t)what->element_size, (size_t)t->size) : 0;
        reduce(what, t->size, buffers, smaller(rank * part, count), smaller((rank + 1) * part, count), true, t->rank);
        break;
    }
    case BROADCAST:
        if (t->rank != what->root) memcpy(buffers[rank], buffers[what->root], bytes);
        break;
    case ALL_GATHER:
        for (size_t peer = 0; peer < (size_t)t->size; peer++)
            if (peer != rank) memcpy(buffers[rank] + peer * bytes, buffers[peer] + peer * bytes, bytes);
        break;
    case REDUCE_SCATTER: reduce(what, t->size, buffers, rank * count, (rank + 1) * count, false, t->rank); break;
    }
}

static const descriptor *described(const transport *t, int rank, uint64_t sequence)
{
    return &t->controls[rank]->ring[sequence % RING];
}

/* Does every share that can be done now; DONE when nothing of what this rank posted is left to do. */
int autopar_progress(transport *t)
{
    control *own = t->controls[t->rank];
    char *buffers[MAX_RANKS];
    while (t->next <= own->posted) {
        for (int rank = 0; rank < t->size; rank++)
            if (acquire(&t->controls[rank]->posted) < t->next) return PENDING;
        const descriptor *what = described(t, t->rank, t->next);
        for (int rank = 0; rank < t->size; rank++) {
            const descriptor *other = described(t, rank, t->next);
            if (memcmp(what, other, offsetof(descriptor, segment)) != 0) return MISMATCH;
            if (t->segments[rank][other->segment] == NULL) {
                t->lacking_rank = rank;
                t->lacking_segment = (int)other->segment;
                return UNMAPPED;
            }
            buffers[rank] = t->segments[rank][other->segment] + other->offset;
        }
        work(t, what, buffers);
        release(&own->finished, t->next++);
    }
    return DONE;
}

/* Announces the next operation. There must be room in the ring: see autopar_wait. Returns as autopar_progress. */
int autopar_post(transport *t, const descriptor *what)
{
    control *own = t->controls[t->rank];
    const uint64_t sequence = own->posted + 1;
    own->ring[sequence % RING] = *what;
    release(&own->posted, sequence);
    return autopar_progress(t);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void pause_for(unsigned turn, unsigned spins)
{
    if (turn < spins) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    } else if (turn < spins + 200) {
        sched_yield();
    } else { /* from 20 us on, growing to 0.5 ms */
        const unsigned naps = turn - spins - 200;
        nanosleep(&(struct timespec){0, 20000 + 2000L * (naps < 240 ? naps : 240)}, NULL);
    }
}

/* Works until an operation is complete on all ranks, `limit` seconds at the most (then PENDING). */
int autopar_wait(transport *t, uint64_t sequence, double limit)
{
    double start = 0;
    for (unsigned turn = 0;; turn++) {
        const int status = autopar_progress(t);
        if (status == MISMATCH || status == UNMAPPED) return status;
        bool complete = true, lost = false;
        for (int rank = 0; rank < t->size; rank++) {
            const bool gone = acquire(&t->controls[rank]->left) != 0; /* read before `finished`, set after it */
            if (acquire(&t->controls[rank]->finished) >= sequence) continue;
            complete = false;
            lost |= gone;
        }
        if (complete) return DONE;
        if (lost) return LEFT;
        if (turn % 16 == 0 || turn > t->spins) {
            const double now = seconds();
            if (start == 0) start = now;
            if (now - start >= limit) return PENDING;
        }
        pause_for(turn, t->spins);
    }
}

transport *autopar_open(int rank, int size, control **controls, unsigned spins)
{
    transport *t = calloc(1, sizeof *t);
    if (t == NULL) return NULL;
    t->rank = rank;
    t->size = size;
    t->spins = spins;
    t->next = 1;
    memcpy(t->controls, controls, (size_t)size * sizeof *controls);
    return t;
}

void autopar_close(transport *t) { free(t); }

void autopar_map(transport *t, int rank, int segment, void *address) { t->segments[rank][segment] = address; }

int autopar_lacking_rank(const transport *t) { return t->lacking_rank; }

int autopar_lacking_segment(const transport *t) { return t->lacking_segment; }

/* Sizes and offsets by which Python checks that it describes the same structs. */
void autopar_layout(uint64_t *into)
{
    const uint64_t facts[] = {
        sizeof(descriptor), offsetof(descriptor, label), offsetof(descriptor, segment), sizeof(control),
        offsetof(control, finished), offsetof(control, left), offsetof(control, segment_fds), offsetof(control, ring),
    };
    memcpy(into, facts, sizeof facts);
}
