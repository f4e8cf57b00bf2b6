#include <algorithm>
#include <limits>

#include "core/engine_state.h"
#include "core/greedy_walk.h"

namespace specmoe {

void Engine::check_written(const Request& request, const RequestRecord& written) const {
  validate(request);
  SPECMOE_CHECK(request.sampling.greedy(), "a replay needs temperature 0, got ", request.sampling.temperature,
                ": a sampled text hangs on the draft");
  SPECMOE_CHECK(written.prompt == request.prompt, "request '", request.id,
                "': the text to replay answers another prompt");
  const int room = std::min(request.max_new_tokens, target_->info().max_positions - int(request.prompt.size()));
  SPECMOE_CHECK(!written.tokens.empty() && static_cast<int>(written.tokens.size()) <= room, "request '", request.id,
                "': the text to replay has ", written.tokens.size(), " tokens, the request allows 1 to ", room);
}

std::vector<RequestRecord> Engine::replay(std::span<const Request> requests, std::span<const RequestRecord> written,
                                          const std::function<void()>& poll) {
  SPECMOE_CHECK(drafter_ != nullptr, "a replay tells what a drafter does; name a drafter");
  SPECMOE_CHECK(lossless_, "acceptance '", spec_.acceptance,
                "' is not lossless for this draft: its texts are not those of plain decoding, and cannot be replayed");
  SPECMOE_CHECK(requests.size() == written.size(), "a replay needs a text for each of ", requests.size(),
                " requests, got ", written.size());
  for (std::size_t i = 0; i < requests.size(); ++i) check_written(requests[i], written[i]);
  std::vector<RequestRecord> records;
  for (std::size_t i = 0; i < requests.size(); ++i) records.push_back(replay_text(requests[i], written[i], poll));
  return records;
}

/// request  a copy: it ends where the text does, whatever ended that
RequestRecord Engine::replay_text(Request request, const RequestRecord& written, const std::function<void()>& poll) {
  RequestRecord record;
  request.on_token = [&](TokenId, bool) { return record.tokens.size() == written.tokens.size(); };
  const std::unique_ptr<Sequence> sequence = begin(request, record);
  std::vector<TokenId> text = request.prompt;
  text.insert(text.end(), written.tokens.begin(), written.tokens.end());
  std::vector<float> tapped;
  if (workspace_->tapped_width > 0) {
    const auto cache = target_->new_cache(static_cast<int>(text.size()), sequence->longest);
    tapped = prefill(*target_, *cache, text, workspace_->result.taps, {}, poll);
  }
  const std::size_t before_root = (request.prompt.size() - 1) * static_cast<std::size_t>(workspace_->tapped_width);
  open_drafter(*sequence, std::span(tapped).first(before_root));
  while (sequence->running()) {
    if (poll) poll();
    replay_step(sequence, text, tapped);
  }
  record.finish = written.finish;
  return record;
}

/// The step without a pass: the text says what the target would.
///
/// tapped  [text, taps, D] of the target; empty without taps
void Engine::replay_step(const std::unique_ptr<Sequence>& sequence, std::span<const TokenId> text,
                         std::span<const float> tapped) {
  StageTimes times;
  StageClock clock;
  draft({&sequence, 1});
  clock.charge(times.draft_ns);
  const TokenTree& tree = sequence->draft.tree;
  const std::size_t root = sequence->record->prompt.size() + sequence->record->tokens.size() - 1;
  // Behind the text's end any token will do: nothing there is emitted.
  const auto next = [&](NodeId node) { return text[std::min(root + tree.depth(node) + 1, text.size() - 1)]; };
  walk_tokens(tree, next, sequence->verdict);
  clock.charge(times.judge_ns);
  lend_rows(*sequence, tapped.subspan(root * static_cast<std::size_t>(workspace_->tapped_width)));
  clock.charge(times.rest_ns);
  commit(*sequence, 0);
  clock.charge(times.draft_ns);
  emit(*sequence);
  clock.charge(times.rest_ns);
  record(*sequence, times, 1);
}

/// Makes the workspace look as a pass over the tree would have left it, as far as the text tells: nodes beside it have
/// NaN for hidden rows, so that a drafter that reads them cannot go unnoticed.
///
/// from_root  [text from the root on, taps, D] of the target
void Engine::lend_rows(Sequence& sequence, std::span<const float> from_root) {
  const int nodes = sequence.draft.tree.size();
  const auto width = static_cast<std::size_t>(workspace_->tapped_width);
  std::vector<float>& rows = workspace_->result.tapped;
  rows.assign(static_cast<std::size_t>(nodes) * width, std::numeric_limits<float>::quiet_NaN());
  sequence.find_path();
  for (std::size_t i = 0; i < sequence.path.size() && (i + 1) * width <= from_root.size(); ++i) {
    const std::span<const float> row = from_root.subspan(i * width, width);
    std::copy(row.begin(), row.end(), rows.begin() + static_cast<std::ptrdiff_t>(width) * sequence.path[i]);
  }
  workspace_->result.row_begin = {0, nodes};
  workspace_->pass_rows = nodes;
  workspace_->unique_experts.clear();
}

}  // namespace specmoe
