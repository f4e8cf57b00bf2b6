#pragma once

#include <string>
#include <vector>

#include "experiments/prompt_file.h"

namespace specmoe::cli {

/// Puts each prompt's conversation, its answered turns and the next one, into the chat template of the model at
/// `target` and makes that the text. A template is a Jinja program: the Python package runs it (`python -m
/// specmoe.chat_prompts`), in a process of the interpreter that SPECMOE_PYTHON names, python3 by default. Throws Error
/// for a model without a template, a template that refuses the question, a prompt that is rendered already, an
/// interpreter without the package.
void render_chat(const std::string& target, std::vector<Prompt>& prompts);

}  // namespace specmoe::cli
