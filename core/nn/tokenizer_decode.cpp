#include "core/nn/tokenizer_decode.h"

#include "core/nn/tokenizer_decode_stages.h"
#include "core/nn/tokenizer_json.h"
#include "kernels/check.h"

namespace specmoe::nn {

DecodeChain::DecodeChain(const nlohmann::json& value) {
  if (value.is_null()) {
    stages_.push_back(make_space_joiner());
  } else {
    read(value);
  }
}

void DecodeChain::read(const nlohmann::json& value) {
  const JsonComponent component(value, "decoder");
  const std::string& type = component.type();
  if (type == "Sequence") {
    component.allow_only({"decoders"});
    for (const auto& item : component.array("decoders")) read(item);
    return;
  }
  SPECMOE_CHECK(!joined_ || type == "Fuse" || type == "Strip", "tokenizer.json: decoder: ", in_quotes(type),
                " after the tokens have been joined is not implemented; expected Strip or nothing");
  if (type == "ByteLevel") {
    component.allow_only({"add_prefix_space", "trim_offsets", "use_regex"});
    stages_.push_back(make_byte_level_stage());
    joined_ = true;
  } else if (type == "ByteFallback") {
    component.allow_only({});
    stages_.push_back(make_byte_fallback_stage());
  } else if (type == "Fuse") {
    component.allow_only({});
    joined_ = true;
  } else if (type == "Metaspace") {
    stages_.push_back(make_metaspace_stage(read_metaspace(component)));
  } else if (type == "Replace") {
    component.allow_only({"pattern", "content"});
    Pattern pattern = Pattern::from_json(component.at("pattern"), "decoder Replace");
    SPECMOE_CHECK(!pattern.is_regex() || component.text("content").find('$') == std::string::npos,
                  "tokenizer.json: decoder Replace: group references ($1) in \"content\" are not implemented");
    stages_.push_back(make_replace_stage(std::move(pattern), component.text("content")));
  } else if (type == "Strip") {
    component.allow_only({"content", "start", "stop"});
    stages_.push_back(make_strip_stage(component.character("content"), component.integer("start"),
                                       component.integer("stop"), joined_));
  } else {
    component.refuse_type("Sequence, ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip");
  }
}

std::unique_ptr<DecodeChain> DecodeChain::fresh() const {
  std::vector<std::unique_ptr<DecodeStage>> stages;
  stages.reserve(stages_.size());
  for (const auto& stage : stages_) stages.push_back(stage->fresh());
  return std::make_unique<DecodeChain>(std::move(stages));
}

void DecodeChain::run(std::size_t first_stage, std::string& text) {
  for (std::size_t i = first_stage; i < stages_.size(); ++i) {
    next_.clear();
    for (const std::string& piece : pieces_) stages_[i]->push(piece, next_);
    std::swap(pieces_, next_);
  }
  for (const std::string& piece : pieces_) text += piece;
  pieces_.clear();
}

void DecodeChain::push(std::string_view token, std::string& text) {
  pieces_.emplace_back(token);
  run(0, text);
}

std::string DecodeChain::bytes(std::string_view token) const {
  std::string bytes(token);
  for (const auto& stage : stages_) bytes = stage->bytes(bytes);
  return bytes;
}

void DecodeChain::finish(std::string& text) {
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    stages_[i]->finish(pieces_);
    run(i + 1, text);
  }
}

}  // namespace specmoe::nn
