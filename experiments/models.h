#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/engine.h"
#include "core/language_model.h"
#include "core/nn/model_loader.h"
#include "core/nn/tokenizer.h"
#include "experiments/progress.h"
#include "experiments/run_options.h"

namespace specmoe::cli {

/// What a run works with. load_model opens each draft model once.
struct Models {
  nn::LoadOptions options;
  std::shared_ptr<LanguageModel> target;
  std::shared_ptr<const nn::Tokenizer> tokenizer;
  ModelLoader load_model;
};

Models open_models(const RunOptions& options, const std::string& dtype, Progress& progress);

/// One request per prompt, in order, without on_token. Throws Error for a prompt that cannot be run.
std::vector<Request> make_requests(const RunOptions& options, std::span<const Prompt> prompts, const Models& models,
                                   double temperature);

/// What tokens say, cut before a stop string.
std::string text_of(const Models& models, const std::vector<std::string>& stops, const std::vector<TokenId>& tokens);

/// Names target and method as Spec-Bench does: target-ngram-chain-token-bfloat16-temp-0.
std::string model_id(const ModelInfo& target, const EngineSpec& spec, double temperature);

}  // namespace specmoe::cli
