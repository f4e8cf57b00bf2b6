#include "core/nn/tokenizer_bpe.h"

#include <algorithm>
#include <utility>

#include "core/nn/tokenizer_json.h"
#include "core/nn/tokenizer_utf8.h"
#include "kernels/check.h"

namespace specmoe::nn {
namespace {

std::string byte_token(int byte) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  return std::string("<0x") + kDigits[byte >> 4] + kDigits[byte & 15] + ">";
}

/// One entry of "merges": "a b" in older files, ["a", "b"] in newer ones; the older list may open with a version line.
std::optional<std::pair<std::string, std::string>> read_merge(const nlohmann::json& entry, std::size_t line) {
  if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
    return std::pair(entry[0].get<std::string>(), entry[1].get<std::string>());
  }
  const std::string text = entry.is_string() ? entry.get<std::string>() : "";
  if (text.starts_with("#version")) return std::nullopt;
  const std::size_t space = text.find(' ');
  SPECMOE_CHECK(space != std::string::npos && text.find(' ', space + 1) == std::string::npos, "tokenizer.json: merge ",
                line, ": expected \"left right\" or [\"left\", \"right\"], got ", in_quotes(entry.dump()));
  return std::pair(text.substr(0, space), text.substr(space + 1));
}

bool later(const BpeCandidate& a, const BpeCandidate& b) { return a.order > b.order; }

}  // namespace

BpeModel::BpeModel(const nlohmann::json& value) {
  const JsonComponent component(value, "model");
  const bool untyped = !value.contains("type") && value.contains("merges");  // before the field existed
  if (component.type() != "BPE" && !untyped) component.refuse_type("BPE");
  component.allow_only({"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                        "byte_fallback", "ignore_merges", "vocab", "merges"});
  const bool dropout = component.has("dropout") && component.at("dropout") != 0.0;
  SPECMOE_CHECK(!dropout,
                "tokenizer.json: model: dropout makes encoding random and is not implemented; set it to null");
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    SPECMOE_CHECK(!component.has(affix) || component.text(affix).empty(), "tokenizer.json: model: ", affix,
                  " is not implemented; expected null");
  }
  if (component.has("unk_token")) unknown_token_ = component.text("unk_token");
  fuse_unknown_ = component.flag("fuse_unk", false);
  byte_fallback_ = component.flag("byte_fallback", false);
  ignore_merges_ = component.flag("ignore_merges", false);
  read_vocabulary(component);
  read_merges(component);
}

void BpeModel::read_vocabulary(const JsonComponent& component) {
  for (const auto& [token, id] : component.object("vocab").items()) {
    vocabulary_.add(token, read_token_id(id, "model.vocab " + in_quotes(token)));
  }
  vocabulary_.seal();
  for (std::size_t c = 0; c < kDirectCharacters; ++c) {
    std::string character;
    append_utf8(character, static_cast<char32_t>(c));
    direct_ids_[c] = vocabulary_.find(character).value_or(-1);
  }
  for (int byte = 0; byte < 256; ++byte) byte_ids_[byte] = vocabulary_.find(byte_token(byte)).value_or(-1);
}

void BpeModel::read_merges(const JsonComponent& component) {
  const nlohmann::json& list = component.array("merges");
  merges_ = MergeTable(list.size());
  std::uint32_t rank = 0;
  for (std::size_t line = 0; line < list.size(); ++line) {
    const auto pair = read_merge(list[line], line);
    if (!pair) continue;
    const auto id_of = [&](const std::string& token) {
      const auto id = vocabulary_.find(token);
      SPECMOE_CHECK(id.has_value(), "tokenizer.json: merge ", line, ": token ", in_quotes(token),
                    " is not in the vocabulary");
      return *id;
    };
    const TokenId left = id_of(pair->first);
    const TokenId right = id_of(pair->second);
    merges_.set(left, right, {rank++, id_of(pair->first + pair->second)});
  }
}

std::optional<TokenId> BpeModel::character_id(char32_t code_point, std::string_view character) const {
  if (code_point >= kDirectCharacters) return vocabulary_.find(character);
  const TokenId id = direct_ids_[code_point];
  return id < 0 ? std::nullopt : std::optional(id);
}

bool BpeModel::fall_back_to_bytes(std::string_view character, std::vector<BpeSymbol>& symbols) const {
  const auto id_of = [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
  if (!byte_fallback_ || std::any_of(character.begin(), character.end(), [&](char byte) { return id_of(byte) < 0; })) {
    return false;
  }
  for (const char byte : character) symbols.push_back({id_of(byte), 1});
  return true;
}

void BpeModel::split_characters(std::string_view word, std::vector<BpeSymbol>& symbols) const {
  BpeSymbol unknown;  // bytes > 0: an unknown token not yet written, because the next one may fuse with it
  const auto write_unknown = [&] {
    if (unknown.bytes > 0) symbols.push_back(std::exchange(unknown, {}));
  };
  for_each_character(word, [&](char32_t code_point, std::string_view character) {
    if (const auto id = character_id(code_point, character)) {
      write_unknown();
      symbols.push_back({*id, static_cast<std::uint32_t>(character.size())});
      return;
    }
    // Bytes overtake a pending unknown token; so does the reference implementation.
    if (fall_back_to_bytes(character, symbols) || unknown_token_.empty()) return;
    if (!fuse_unknown_) write_unknown();
    const auto id = vocabulary_.find(unknown_token_);
    SPECMOE_CHECK(id.has_value(), "tokenizer: ", in_quotes(character), " has no token and the unknown token ",
                  in_quotes(unknown_token_), " is not in the vocabulary");
    unknown.id = *id;
    unknown.bytes += static_cast<std::uint32_t>(character.size());
  });
  write_unknown();
  for (std::size_t i = 0; i < symbols.size(); ++i) {
    symbols[i].previous = static_cast<std::int32_t>(i) - 1;
    symbols[i].next = i + 1 < symbols.size() ? static_cast<std::int32_t>(i) + 1 : -1;
  }
}

void BpeModel::queue_pair(BpeScratch& scratch, std::int32_t left) const {
  if (left < 0 || scratch.symbols[left].next < 0) return;
  const Merge* merge = merges_.find(scratch.symbols[left].id, scratch.symbols[scratch.symbols[left].next].id);
  if (merge == nullptr) return;
  scratch.queue.push_back(
      {static_cast<std::uint64_t>(merge->rank) << 32 | static_cast<std::uint32_t>(left), merge->merged});
}

void BpeModel::merge_all(BpeScratch& scratch) const {
  std::vector<BpeSymbol>& symbols = scratch.symbols;
  std::vector<BpeCandidate>& queue = scratch.queue;  // no structured binding: clang 14 cannot capture one
  queue.clear();
  for (std::size_t i = 0; i < symbols.size(); ++i) queue_pair(scratch, static_cast<std::int32_t>(i));
  std::make_heap(queue.begin(), queue.end(), later);
  const auto push = [&](std::int32_t left) {
    const std::size_t before = queue.size();
    queue_pair(scratch, left);
    if (queue.size() > before) std::push_heap(queue.begin(), queue.end(), later);
  };
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), later);
    const BpeCandidate candidate = queue.back();
    queue.pop_back();
    const auto at = static_cast<std::int32_t>(static_cast<std::uint32_t>(candidate.order));
    BpeSymbol& left = symbols[at];
    if (left.bytes == 0 || left.next < 0) continue;
    BpeSymbol& right = symbols[left.next];
    const Merge* merge = merges_.find(left.id, right.id);
    if (merge == nullptr || merge->merged != candidate.merged) continue;
    left = {candidate.merged, left.bytes + right.bytes, left.previous, right.next};
    right.bytes = 0;
    if (left.next >= 0) symbols[left.next].previous = at;
    push(left.previous);
    push(at);
  }
}

void BpeModel::encode_word(std::string_view word, BpeScratch& scratch) const {
  scratch.symbols.clear();
  if (ignore_merges_) {
    if (const auto id = vocabulary_.find(word)) {
      scratch.symbols.push_back({*id, static_cast<std::uint32_t>(word.size())});
      return;
    }
  }
  split_characters(word, scratch.symbols);
  merge_all(scratch);
}

}  // namespace specmoe::nn
