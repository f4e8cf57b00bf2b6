#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/sampling_params.h"
#include "experiments/marked_text.h"
#include "experiments/prompt_file.h"
#include "experiments/settings.h"

namespace specmoe::cli {

/// What generate, bench and tune are asked to do, checked. Lists have one item or more; generate takes one each, tune
/// several trees.
struct RunOptions {
  std::string target;
  std::vector<std::string> drafters;  // [""]: plain decoding
  std::vector<std::string> trees;     // [""]: the default
  std::vector<std::string> acceptances;
  std::vector<double> temperatures;
  SamplingParams sampling;  // its temperature is unused
  bool allow_lossy = false;

  std::vector<std::string> dtypes;
  kernels::DType kv_dtype = kernels::DType::kFloat32;
  std::string device;
  bool device_loop = false;
  bool device_switch = false;
  bool fast_prefill = false;
  std::string cache;  // empty: none
  int threads = 0;

  std::vector<Prompt> prompts;
  bool all_turns = false;               // of each question, one after another; otherwise the first alone
  std::vector<std::string> categories;  // prompt classes that bench measures apart; "all": every prompt
  int max_new_tokens = 0;
  std::vector<std::string> stops;
  bool ignore_eos = false;

  std::vector<int> batches;
  int repeat = 1;
  MarkStyle mark = MarkStyle::kNone;
  bool show_text = false;
  bool quiet = false;
  std::string output;  // empty: no file
  std::string cells;   // the same
};

/// Those of --prompt or --prompts, of which one must be given, with --chat as the target's chat template has them.
std::vector<Prompt> prompts_of(const Settings& settings);

/// Throws Error for what is missing or out of range. Reads the prompt file, no model.
RunOptions run_options(Command command, const Settings& settings);

}  // namespace specmoe::cli
