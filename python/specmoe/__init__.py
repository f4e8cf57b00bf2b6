"""Speculative decoding of mixture-of-experts language models.

A drafter proposes a tree of tokens, one pass of the target scores all of it, and an acceptance policy keeps a path:

    import specmoe

    target = specmoe.load("experiments/models/target")
    engine = specmoe.Engine(target, drafter="independent(experiments/models/drafter)", tree="chain(gamma=4)")
    result = engine.generate("Question: ", max_new_tokens=64)  # on_text=print shows it while it grows
    print(result.text, result.metrics["tau"])
    print(specmoe.prove("token", law="iid", tree="chain(gamma=3)"))

sweep() measures a grid of methods, tune() finds the tree that pays most, and load_results() reads what they kept.

Drafters, topologies and policies may be written in Python: subclass Drafter, TreePolicy or AcceptancePolicy.
"""

from _specmoe import (
    AcceptancePolicy,
    ChatTemplate,
    CounterExample,
    Draft,
    Drafter,
    Engine,
    Error,
    GrowthView,
    Model,
    ModelInfo,
    Parameter,
    PluginInfo,
    ProbRows,
    Proof,
    ProposeRequest,
    Result,
    Tensor,
    Tokenizer,
    TokenTree,
    TreePolicy,
    Uniform,
    Uniforms,
    __version__,
    acceptance_policies,
    chat_template,
    drafters,
    load,
    metric_definitions,
    metrics,
    prove,
    register,
    tokenizer_json,
    tree_policies,
)

from specmoe.conversation import chat, render_chat
from specmoe.grammar import Grammar
from specmoe.results import load_results, sweep, tune

__all__ = [
    "AcceptancePolicy",
    "ChatTemplate",
    "CounterExample",
    "Draft",
    "Drafter",
    "Engine",
    "Error",
    "Grammar",
    "GrowthView",
    "Model",
    "ModelInfo",
    "Parameter",
    "PluginInfo",
    "ProbRows",
    "Proof",
    "ProposeRequest",
    "Result",
    "Tensor",
    "TokenTree",
    "Tokenizer",
    "TreePolicy",
    "Uniform",
    "Uniforms",
    "__version__",
    "acceptance_policies",
    "chat",
    "chat_template",
    "drafters",
    "load",
    "load_results",
    "metric_definitions",
    "metrics",
    "prove",
    "register",
    "render_chat",
    "tokenizer_json",
    "sweep",
    "tune",
    "tree_policies",
]
