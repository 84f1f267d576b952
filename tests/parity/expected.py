"""Which of the wheel's tests cannot be run or passed, each with its reason."""

from __future__ import annotations

__all__ = ["EXCLUDED", "OVER_GLOO", "SLOW"]

_REDUCER = "reads `reducer` or `logger`, objects of torch's C++ code"

EXCLUDED: dict[str, str] = {
    "test_ddp_inference": "wraps a SyncBatchNorm; its first forward with gradients is on one rank alone",
    "test_DistributedDataParallel_non_default_stream": "needs CUDA streams",
    "test_ddp_device": "expects inputs on CUDA devices",
    "test_ddp_logging_data_gpu": "expects a CUDA device in the logging data",
    "test_ddp_logging_data_cpu": "reads the times that torch's reducer measures in each step",
    "test_compute_bucket_assignment_by_size_sparse_error_with_logger": _REDUCER,
    "test_ddp_control_flow_different_across_ranks": _REDUCER,
    "test_ddp_control_flow_same_across_ranks": _REDUCER,
    "test_detect_ddp_is_actually_static": _REDUCER,
    "test_ddp_build_debug_param_to_name_mapping": "calls the methods that prepare torch's reducer",
    "test_ddp_build_debug_param_to_name_mapping_requires_grad": "calls the methods that prepare torch's reducer",
    "test_ddp_sync_module_states": "reads the size of the messages in which torch copies a module",
    "test_ddp_sink_noclone": "switches off a copy that torch's DDP makes; capturing makes others, once",
    "test_ddp_broadcast_buffer_via_hook": "registers a hook for buffers with a private method",
    "test_ddp_buffer_hook_allreduce": "registers a hook for buffers with a private method",
    "test_ddp_buffer_hook_allreduce_return_future": "registers a hook for buffers with a private method",
    "test_ddp_hook_pickling_powerSGD": "loads a pickle in a way that torch refuses since version 2.6",
    "test_ddp_profiling_execution_trace": "is skipped by torch itself (issue 137765)",
    "test_ddp_sync_bn_training_vs_eval": "is skipped by torch itself (pull request 113620)",
    "test_ddp_has_finalized": "is skipped by torch itself (issue 102751)",
}

# They take minutes without a GPU, for torch's DDP, too; not started.
SLOW: dict[str, str] = {
    "test_ddp_uneven_inputs": "convolves images of 1000 x 1000 pixels for minutes on a CPU",
}

# They look for the collectives of gloo in a profile; all others run on what `backend="auto"` chooses.
OVER_GLOO = frozenset({"test_ddp_profiling_autograd_profiler", "test_ddp_profiling_torch_profiler"})
