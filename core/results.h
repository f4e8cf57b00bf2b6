#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/engine.h"
#include "core/language_model.h"
#include "core/metrics.h"
#include "core/provenance.h"
#include "core/sampling_params.h"
#include "core/trace.h"

namespace specmoe {

/// Version of the lines below, written into each: raised when a field changes its meaning.
inline constexpr int kResultSchema = 1;

/// What a request's line says besides its record.
struct AnswerContext {
  std::string category;  // of the question; may be empty
  std::string model_id;  // names target and method, as in Spec-Bench
  EngineSpec spec;       // drafter empty: plain decoding
  SamplingParams sampling;
  std::string text;  // what was generated, cut before a stop string
  int run = 0;       // which of the repeated runs of this question
  int experts_per_token = 0;
  int turn = 1;                   // of the question; a field of the line from the second on
  bool logits_processor = false;  // the request had one; a field of the line only then
};

/// One finished request as one line of JSON: the Spec-Bench answer row (question_id, category, model_id, choices with
/// turns, decoding_steps, new_tokens, wall_time in seconds and accept_lengths) and beside it token ids, counts per step
/// and per position, distinct experts and stage times. Valid JSON whatever bytes the texts hold: what is not UTF-8 is
/// replaced.
std::string answer_json(const RequestRecord& record, const AnswerContext& context);

/// One cell of a grid: drafter, topology, policy, temperature, batch size, dtype and prompt class, measured beside
/// plain decoding on the same prompts.
struct BenchSummary {
  std::string cell;  // tells it from every cell with other settings
  std::string dtype;
  std::string category;  // prompt class, "all" for the whole file
  int batch = 1;
  EngineSpec spec;  // canonical
  bool lossless = false;
  SamplingParams sampling;
  int prompts = 0;
  int runs = 0;               // of each prompt and method
  Counts plain, speculative;  // over all prompts and runs
  std::vector<std::string> prompt_ids;
  std::vector<Counts> by_prompt;  // speculative, first run
  std::vector<double> speedups;   // per group of prompts that ran together
  Interval speedup;
  std::optional<bool> identical;  // greedy only: whether every text was token for token the plain one
  std::string difference;         // the first one from plain decoding, or between two runs of one seed
};

/// Mean time of a speculative target pass / mean time of a plain one, r(T). NaN when either has no step.
double verify_cost_ratio(const Counts& speculative, const Counts& plain);

/// The summary as one line of JSON, `"kind": "summary"`: one per cell. config_json: every setting, an object.
std::string summary_json(const BenchSummary& summary, const ModelInfo& target, int threads,
                         const Provenance& provenance, const std::string& config_json);

/// Its fields as an object of JSON, for result lines of other kinds.
std::string provenance_json(const Provenance& provenance);

/// A cell that could not run, as one line of JSON, `"kind": "failed"`.
std::string failure_json(const BenchSummary& cell, const std::string& error);

}  // namespace specmoe
