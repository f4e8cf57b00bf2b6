#include "core/trace.h"

namespace specmoe {

StageTimes& StageTimes::operator+=(const StageTimes& other) {
  draft_ns += other.draft_ns;
  verify_ns += other.verify_ns;
  judge_ns += other.judge_ns;
  rest_ns += other.rest_ns;
  return *this;
}

const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kRunning:
      return "running";
    case FinishReason::kMaxTokens:
      return "max_new_tokens";
    case FinishReason::kStopToken:
      return "stop_token";
    case FinishReason::kStopText:
      return "stop_text";
    case FinishReason::kContextFull:
      return "context_full";
  }
  return "unknown";
}

}  // namespace specmoe
