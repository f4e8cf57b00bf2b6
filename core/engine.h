#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/acceptance.h"
#include "core/drafter.h"
#include "core/language_model.h"
#include "core/logits_processor.h"
#include "core/sampling_params.h"
#include "core/trace.h"
#include "core/tree_policy.h"
#include "core/whole_step.h"

namespace specmoe {

struct Request {
  std::string id;
  std::vector<TokenId> prompt;  // one token or more
  SamplingParams sampling;
  std::shared_ptr<LogitsProcessor> logits_processor;  // may be null
  int max_new_tokens = 128;
  /// Ends the text; emitted as its last token. Usually the checkpoint's ModelInfo::stop_tokens.
  std::vector<TokenId> stop_tokens;
  /// Called with every emitted token in order; returning true ends the text after that token (a stop string was
  /// completed). For streaming too. May be empty.
  std::function<bool(TokenId token, bool from_draft)> on_token;
};

/// How an engine is put together, as spec strings. Empty tree and acceptance take the defaults: chain(gamma=4), and
/// `token` on chains, `naive` on trees.
struct EngineSpec {
  std::string drafter{};  // empty: plain decoding
  std::string tree{};
  std::string acceptance{};
  bool allow_lossy = false;
  bool device_loop = false;    // whole steps run several in a row without the host: WholeStepParts::loop
  bool device_switch = false;  // whole steps choose the size of the target's pass: WholeStepParts::choose
};

/// Ready-made parts; a null one is made from its spec.
struct EngineParts {
  std::shared_ptr<Drafter> drafter{};
  std::shared_ptr<TreePolicy> tree{};
  std::shared_ptr<AcceptancePolicy> acceptance{};
};

/// Numbers equal prompts with equal seeds (SamplingParams::sequence = 0, 1, ...), so that they get different samples;
/// every other request keeps the text it would have alone.
void tell_repeats_apart(std::span<Request> requests);

/// Throws Error for a prompt that a model cannot read: empty, longer than its context, a token outside its vocabulary.
void check_prompt(const Request& request, const ModelInfo& model);

/// Speculative decoding of any number of requests, up to `batch` at a time with one target pass per step for all of
/// them. Plain decoding is the same loop with no drafter. One sequence at a time on a device that has whole steps for
/// its parts is left to these, with the same text, unless its request has penalties or a logits processor.
///
/// For one thread at a time, and so is its target: a pass uses buffers of the model and the threads of its pool.
/// Engines that run at once need models and pools of their own (nn::LoadOptions::pool), or a lock around what runs
/// them.
class Engine {
 public:
  /// load_model is what drafters open their checkpoints with; a part that is there already is used instead of its spec.
  /// Throws Error for unknown names or parameters; for a policy that is not lossless under the law the drafts will
  /// have, unless spec.allow_lossy; for a chain-only policy with a branching tree; for vocabularies that differ.
  Engine(std::shared_ptr<LanguageModel> target, const EngineSpec& spec, const ModelLoader& load_model = {},
         EngineParts parts = {});
  ~Engine();

  /// Runs all requests to their end; record i belongs to request i.
  ///
  /// batch  most sequences at a time, 1 or more
  /// poll   called between passes of prompts and between steps; what it throws ends the run and reaches the caller
  /// (Ctrl-C) throws Error before the first step when a request cannot be run: empty prompt, token outside the
  /// vocabulary,
  ///        prompt longer than the context, temperature above 0 with a policy that only knows the argmax
  std::vector<RequestRecord> generate(std::span<const Request> requests, int batch = 1,
                                      const std::function<void()>& poll = {});

  /// What generate() would record of requests whose greedy texts are known: the same steps, but for experts, which are
  /// not there, and for times. What a drafter proposes after a text hangs on the text alone, so the target has nothing
  /// to say; where the drafter reads its hidden rows, one pass over each text gives them.
  ///
  /// written  what plain decoding made of request i; it ends where that ended
  /// throws   Error as generate() does, without a drafter, above temperature 0, for a policy that is not lossless, and
  ///          for a text that is not of its request
  std::vector<RequestRecord> replay(std::span<const Request> requests, std::span<const RequestRecord> written,
                                    const std::function<void()>& poll = {});

  const LanguageModel& target() const { return *target_; }
  const Drafter* drafter() const { return drafter_.get(); }
  /// Whether every text it emits has exactly the target's distribution.
  bool lossless() const { return lossless_; }
  /// The specs with every parameter written out; as they were given for parts that were ready-made.
  const EngineSpec& spec() const { return spec_; }
  /// Who leads the steps when there is one sequence at a time: "" (the CPU does everything), "whole steps on cuda:0",
  /// or "steps led by the host: " and why. RequestRecord::whole_steps tells what a request got.
  ///
  /// sampling  of the requests: penalties are left to the host
  std::string step_leader(const SamplingParams& sampling = {}) const;

 private:
  struct Sequence;
  struct Workspace;

  void check_parts();
  void validate(const Request& request) const;
  std::unique_ptr<Sequence> begin(const Request& request, RequestRecord& record) const;
  void open_drafter(Sequence& sequence, std::span<const float> tapped) const;
  std::unique_ptr<Sequence> start(const Request& request, RequestRecord& record, int batch,
                                  const std::function<void()>& poll) const;
  void step(std::span<const std::unique_ptr<Sequence>> batch);
  void whole_step(Sequence& sequence);
  void draft(std::span<const std::unique_ptr<Sequence>> batch);
  void score(std::span<const std::unique_ptr<Sequence>> batch);
  void judge(Sequence& sequence, int block);
  void commit(Sequence& sequence, int block);
  void emit(Sequence& sequence);
  void record(Sequence& sequence, const StageTimes& times, int batch);
  void check_written(const Request& request, const RequestRecord& written) const;
  RequestRecord replay_text(Request request, const RequestRecord& written, const std::function<void()>& poll);
  void replay_step(const std::unique_ptr<Sequence>& sequence, std::span<const TokenId> text,
                   std::span<const float> tapped);
  void lend_rows(Sequence& sequence, std::span<const float> from_root);

  std::shared_ptr<LanguageModel> target_;
  std::shared_ptr<Drafter> drafter_;
  std::shared_ptr<TreePolicy> tree_;
  std::shared_ptr<AcceptancePolicy> acceptance_;
  EngineSpec spec_;
  bool lossless_ = true;
  WholeStepOffer whole_;
  std::unique_ptr<Workspace> workspace_;
};

}  // namespace specmoe
