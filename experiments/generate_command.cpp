#include <iostream>
#include <memory>
#include <sstream>

#include "core/metrics.h"
#include "core/results.h"
#include "experiments/chat.h"
#include "experiments/commands.h"
#include "experiments/flags.h"
#include "experiments/interrupt.h"
#include "experiments/marked_text.h"
#include "experiments/models.h"
#include "experiments/output_file.h"
#include "experiments/table.h"
#include "kernels/check.h"

namespace specmoe::cli {
namespace {

constexpr const char* kHelp = R"(Usage: specmoe generate --target FOLDER --prompt TEXT [option]...

Continues texts with a model and prints them on stdout. With --drafter it decodes speculatively: the drafter proposes
several tokens, one pass of the target judges them all, and with a lossless policy the text is what the target alone
would have written (at temperature 0 token for token; above, in distribution). On a terminal, accepted draft tokens are
underlined. With --chat, the later turns of a question are asked after the answers to the earlier ones.

Examples:
  specmoe generate --target experiments/models/target --prompt "Problem: Ada has 3 apples"
  specmoe generate --target experiments/models/target --drafter 'independent(path=experiments/models/drafter)' \
      --tree 'chain(gamma=4)' --prompt "Problem: Ada has 3 apples" --max-new-tokens 64 --mark brackets
  specmoe generate --target M --drafter ngram --prompts questions.jsonl --temperature 0.8 --seed 7 --output answers.jsonl
)";

/// The texts of all requests on stdout, in order: each while it grows when they run one by one, else when all are done.
class TextStreams {
 public:
  TextStreams(const RunOptions& options, const std::vector<Prompt>& prompts, const Models& models,
              std::vector<Request>& requests)
      : options_(options), prompts_(prompts) {
    for (std::size_t i = 0; i < requests.size(); ++i) {
      kept_.push_back(std::make_unique<std::ostringstream>());
      std::ostream& out = live() ? std::cout : *kept_.back();
      printers_.push_back(std::make_unique<TextPrinter>(out, options.mark, models.tokenizer, options.stops));
      requests[i].on_token = [this, i](TokenId token, bool from_draft) {
        if (live()) open(i);
        return printers_[i]->push(token, from_draft);
      };
    }
  }

  void finish() {
    open(printers_.size() - 1);
    close(printers_.size() - 1);
  }
  const std::string& text(std::size_t i) const { return printers_[i]->text(); }

 private:
  bool live() const { return options_.batches[0] == 1; }

  /// Ends the texts before text i and prints the headings up to it.
  void open(std::size_t i) {
    for (; opened_ <= i; ++opened_) {
      if (opened_ > 0) close(opened_ - 1);
      const Prompt& prompt = prompts_[opened_];
      const std::string turn = prompt.answers.empty() ? "" : concat(", turn ", prompt.answers.size() + 1);
      if (printers_.size() > 1 || !turn.empty()) std::cout << "== " << prompt.id << turn << " ==" << std::endl;
    }
  }
  void close(std::size_t i) {
    printers_[i]->finish();
    std::cout << kept_[i]->str() << std::endl;
  }

  const RunOptions& options_;
  const std::vector<Prompt>& prompts_;
  std::vector<std::unique_ptr<std::ostringstream>> kept_;
  std::vector<std::unique_ptr<TextPrinter>> printers_;
  std::size_t opened_ = 0;
};

std::string statistics(const Counts& counts, const ModelInfo& target, bool speculative) {
  const Metrics metrics = derive(counts, target.experts_per_token);
  const double seconds = static_cast<double>(counts.times.total_ns()) * 1e-9;
  std::string line = std::to_string(counts.emitted) + " tokens in " + fixed(seconds, 3) + " s (" +
                     fixed(metrics.tokens_per_s, 0) + " tokens/s)";
  if (speculative) {
    line += ", " + std::to_string(counts.steps) + " steps, tau " + fixed(metrics.tau, 2) + ", acceptance " +
            fixed(metrics.acceptance_rate, 2);
  }
  if (target.experts > 0) line += ", " + fixed(metrics.unique_experts, 2) + " distinct experts a step";
  if (speculative) {
    line += "; draft " + fixed(100 * metrics.draft_share, 0) + " %, verify " + fixed(100 * metrics.verify_share, 0) +
            " %, judge " + fixed(100 * metrics.judge_share, 0) + " %, rest " + fixed(100 * metrics.rest_share, 0) +
            " %";
  }
  return line;
}

/// The questions that have another turn, with what was answered so far.
std::vector<Prompt> next_turns(const RunOptions& options, const std::vector<Prompt>& prompts,
                               const TextStreams& streams) {
  std::vector<Prompt> next;
  for (std::size_t i = 0; options.all_turns && i < prompts.size(); ++i) {
    Prompt prompt = prompts[i];
    prompt.answers.push_back(streams.text(i));
    prompt.rendered = false;
    if (prompt.answers.size() < prompt.turns.size()) next.push_back(std::move(prompt));
  }
  if (!next.empty()) render_chat(options.target, next);
  return next;
}

}  // namespace

int run_generate(const std::vector<std::string>& arguments) {
  if (wants_help(arguments)) {
    std::cout << kHelp << help_text(Command::kGenerate);
    return 0;
  }
  const RunOptions options = run_options(Command::kGenerate, Settings::parse(Command::kGenerate, arguments));
  OutputFile output(options.output);
  Progress progress(options.quiet);
  const Models models = open_models(options, options.dtypes[0], progress);
  const EngineSpec spec{options.drafters[0], options.trees[0],    options.acceptances[0],
                        options.allow_lossy, options.device_loop, options.device_switch};
  Engine engine(models.target, spec, models.load_model);
  const std::string leader = engine.step_leader(options.sampling);
  if (!leader.empty() && options.batches[0] == 1) progress.say(leader);
  const ModelInfo& target = models.target->info();
  const double temperature = options.temperatures[0];
  Counts counts;
  for (std::vector<Prompt> prompts = options.prompts; !prompts.empty();) {
    std::vector<Request> requests = make_requests(options, prompts, models, temperature);
    TextStreams streams(options, prompts, models, requests);
    const std::vector<RequestRecord> records = engine.generate(requests, options.batches[0], poll_interrupt);
    streams.finish();
    for (std::size_t i = 0; i < records.size(); ++i) {
      counts.add(records[i]);
      AnswerContext context{prompts[i].category, model_id(target, engine.spec(), temperature), engine.spec(),
                            requests[i].sampling, streams.text(i)};
      context.experts_per_token = target.experts_per_token;
      context.turn = static_cast<int>(prompts[i].answers.size()) + 1;
      output.line(answer_json(records[i], context));
    }
    prompts = next_turns(options, prompts, streams);
  }
  counts.check_identities();
  output.commit();
  progress.say(statistics(counts, target, engine.drafter() != nullptr));
  return 0;
}

}  // namespace specmoe::cli
