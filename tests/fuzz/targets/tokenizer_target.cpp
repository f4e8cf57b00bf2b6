// Whatever a tokenizer.json holds: it encodes and decodes, whole and as a stream, or there is a specmoe::Error of one
// line.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/nn/tokenizer.h"
#include "tests/fuzz/targets/fuzzing.h"

using namespace specmoe::fuzzing;
using namespace specmoe::nn;
using specmoe::TokenId;

namespace {

constexpr std::string_view kTexts[] = {"",
                                       "Hello, w\xC3\xB6rld 123\r\n  <s><mask> e\xCC\x81 \xE6\x97\xA5\xE6\x9C\xAC",
                                       {"\0\xFF\xE6 a", 5},
                                       "  -- '' \xE2\x96\x81\xE2\x96\x81 x,y;z!! <|endoftext|>"};

void round_trip(const std::shared_ptr<const Tokenizer>& tokenizer, std::string_view text) {
  std::vector<TokenId> ids;
  for (const EncodedToken& token : tokenizer->encode_with_offsets(text)) {
    require(0 <= token.begin && token.begin <= token.end && token.end <= static_cast<std::int64_t>(text.size()));
    ids.push_back(token.id);
  }
  StreamDecoder decoder(tokenizer);
  std::string streamed;
  for (const TokenId id : ids) streamed += decoder.push(id);
  require(streamed + decoder.finish() == tokenizer->decode(ids));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::shared_ptr<const Tokenizer> tokenizer;
  const std::string_view document(reinterpret_cast<const char*>(data), size);
  if (!works_or_is_refused([&] { tokenizer = Tokenizer::from_json(document); })) return 0;
  for (const std::string_view text : kTexts) works_or_is_refused([&] { round_trip(tokenizer, text); });
  return 0;
}
