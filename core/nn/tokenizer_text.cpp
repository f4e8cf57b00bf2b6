#include "core/nn/tokenizer_text.h"

#include <limits>

#include "core/nn/tokenizer_utf8.h"
#include "kernels/check.h"

namespace specmoe::nn {

AlignedText AlignedText::from_caller(std::string_view caller) {
  SPECMOE_CHECK(caller.size() < std::numeric_limits<std::uint32_t>::max() / 4,
                "text to encode: expected under 1 GiB at a time, got ", caller.size(), " bytes; encode it in parts");
  AlignedText result;
  result.text.reserve(caller.size());
  result.source.reserve(caller.size());
  std::uint32_t at = 0;
  while (at < caller.size()) {
    const Utf8Step step = utf8_step(caller.substr(at));
    const Span from{at, at + step.length};
    const bool whole = step.kind == Utf8Kind::kCharacter;
    result.append(whole ? caller.substr(at, step.length) : kReplacementCharacter, from);
    at = from.end;
  }
  return result;
}

void AlignedText::append(std::string_view added, Span from) {
  text += added;
  source.insert(source.end(), added.size(), from);
}

void AlignedText::append_range(const AlignedText& other, Span range) {
  text += other.view(range);
  source.insert(source.end(), other.source.begin() + range.begin, other.source.begin() + range.end);
}

AlignedText AlignedText::slice(Span range) const {
  AlignedText result;
  result.append_range(*this, range);
  return result;
}

}  // namespace specmoe::nn
