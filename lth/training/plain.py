"""Recognise networks that a fast path may train: those that are no more than their modules."""

from torch import nn

HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
    "_state_dict_hooks", "_load_state_dict_pre_hooks",
)  # fmt: skip
PARAMETER_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def is_plain(model: nn.Module) -> bool:
    """Return whether a network trains every parameter, uses each module and parameter once, and has
    no hooks and no replaced methods: then its modules say all that it computes."""
    modules = [module for _, module in model.named_modules(remove_duplicate=False)]
    parameters = [p for _, p in model.named_parameters(remove_duplicate=False)]
    return (
        len(set(map(id, modules))) == len(modules)
        and len(set(map(id, parameters))) == len(parameters)
        and all(parameter.requires_grad for parameter in parameters)
        and not any(getattr(module, name, None) for module in modules for name in HOOKS)
        and not any(getattr(p, name, None) for p in parameters for name in PARAMETER_HOOKS)
        and not any("forward" in vars(module) for module in modules)
    )


def is_known(model: nn.Module) -> bool:
    """Return whether all modules of a network are torch's or those of `lth.models`. Others may use
    the weights of a module without calling it."""
    return all(
        type(module).__module__.startswith(("torch.nn.", "lth.models"))
        for module in model.modules()
    )
