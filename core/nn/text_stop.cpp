#include "core/nn/text_stop.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "kernels/check.h"

namespace specmoe::nn {

TextStop::TextStop(std::shared_ptr<const Tokenizer> tokenizer, std::vector<std::string> stops)
    : decoder_(std::move(tokenizer)), stops_(std::move(stops)) {
  for (const std::string& stop : stops_) {
    SPECMOE_CHECK(!stop.empty(), "a stop string must have at least one character, got an empty one");
    longest_ = std::max(longest_, stop.size());
  }
}

bool TextStop::push(TokenId token) { return stopped_ || append(decoder_.push(token)); }

void TextStop::finish() {
  if (!stopped_) append(decoder_.finish());
  settled_ = text_.size();
}

bool TextStop::append(const std::string& piece) {
  const std::size_t before = text_.size();
  text_ += piece;
  stopped_ = cut(before - std::min(before, longest_));
  settled_ = text_.size() - (stopped_ ? 0 : unsettled_tail());
  return stopped_;
}

/// Cuts the text before the first stop string that begins at `from` or later.
bool TextStop::cut(std::size_t from) {
  std::size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, text_.find(stop, from));
  if (first == std::string::npos) return false;
  text_.resize(first);
  return true;
}

/// Bytes at the end of the text that are the beginning of a stop string.
std::size_t TextStop::unsettled_tail() const {
  std::size_t tail = 0;
  for (const std::string& stop : stops_) {
    for (std::size_t n = std::min(stop.size() - 1, text_.size()); n > tail; --n) {
      if (std::string_view(text_).ends_with(std::string_view(stop).substr(0, n))) tail = n;
    }
  }
  return tail;
}

}  // namespace specmoe::nn
