#include "tests/support/renamed_model.h"

#include <unistd.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <utility>

#include "core/nn/safetensors.h"
#include "core/nn/safetensors_writer.h"
#include "core/nn/tokenizer.h"
#include "kernels/check.h"

namespace specmoe::test {
namespace {

using nlohmann::json;
using NewIds = std::map<TokenId, TokenId>;  // of old ones

json read(const std::filesystem::path& file) {
  std::ifstream stream(file);
  return json::parse(stream);
}

json renamed_tokenizer(json tokenizer, const NewIds& ids) {
  json& model = tokenizer["model"];
  json vocab = json::object();
  for (const auto& [token, id] : model["vocab"].items()) {
    if (ids.contains(id)) vocab[token] = ids.at(id);
  }
  json merges = json::array();
  for (const json& merge : model["merges"]) {
    const std::string left = merge[0];
    const std::string right = merge[1];
    if (vocab.contains(left) && vocab.contains(right) && vocab.contains(left + right)) merges.push_back(merge);
  }
  model["vocab"] = std::move(vocab);
  model["merges"] = std::move(merges);
  for (json& token : tokenizer["added_tokens"]) token["id"] = ids.at(token["id"]);
  for (json& token : tokenizer["post_processor"]["special_tokens"]) {
    for (json& id : token["ids"]) id = ids.at(id);
  }
  return tokenizer;
}

/// Rows of the matrices that have one for each token go where their tokens go.
void write_weights(const std::filesystem::path& source, const std::filesystem::path& target, std::int64_t vocab,
                   std::span<const TokenId> order) {
  const nn::SafetensorsFile file(source.string());
  const auto by_token = [&](const nn::Tensor& tensor) { return tensor.shape.size() == 2 && tensor.shape[0] == vocab; };
  const auto row_bytes = [&](const nn::Tensor& tensor) {
    return (tensor.end - tensor.begin) / static_cast<std::uint64_t>(tensor.shape[0]);
  };
  std::vector<nn::NewTensor> tensors;
  for (const nn::Tensor& tensor : file.tensors()) {
    auto& made =
        tensors.emplace_back(nn::NewTensor{tensor.name, tensor.dtype, tensor.shape, tensor.end - tensor.begin});
    if (!by_token(tensor)) continue;
    made.shape[0] = static_cast<std::int64_t>(order.size());
    made.bytes = order.size() * row_bytes(tensor);
  }
  nn::SafetensorsWriter writer(target.string(), tensors, {});
  for (const nn::Tensor& tensor : file.tensors()) {
    if (!by_token(tensor)) {
      writer.write(tensor.name, 0, {tensor.data, static_cast<std::size_t>(tensor.end - tensor.begin)});
      continue;
    }
    const std::uint64_t bytes = row_bytes(tensor);
    for (std::size_t row = 0; row < order.size(); ++row) {
      const std::byte* from = tensor.data + static_cast<std::uint64_t>(order[row]) * bytes;
      writer.write(tensor.name, row * bytes, {from, static_cast<std::size_t>(bytes)});
    }
  }
  writer.finish("");
}

}  // namespace

std::vector<TokenId> shuffled_ids(const std::string& model) {
  std::vector<TokenId> order(static_cast<std::size_t>(nn::Tokenizer::from_file(model)->vocab_size()));
  std::iota(order.begin(), order.end(), 0);
  std::mt19937 bits(7);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[bits() % i]);
  return order;
}

std::vector<TokenId> thinned_ids(const std::string& model) {
  const auto tokenizer = nn::Tokenizer::from_file(model);
  std::vector<TokenId> kept;
  for (TokenId id = 0; id < tokenizer->vocab_size(); ++id) {
    if (id % 3 != 0 || tokenizer->is_special(id) || tokenizer->token_bytes(id).size() == 1) kept.push_back(id);
  }
  return kept;
}

RenamedModel::RenamedModel(const std::string& source, std::span<const TokenId> order) {
  static int count = 0;
  path_ = std::filesystem::temp_directory_path() / concat("specmoe_renamed_", getpid(), "_", count++);
  std::filesystem::create_directory(path_);
  const std::filesystem::path from = source;
  NewIds ids;
  for (std::size_t i = 0; i < order.size(); ++i) ids[order[i]] = static_cast<TokenId>(i);
  json config = read(from / "config.json");
  const std::int64_t vocab = config["vocab_size"];
  config["vocab_size"] = order.size();
  for (const char* key : {"bos_token_id", "eos_token_id"}) config[key] = ids.at(config[key]);
  std::ofstream(path_ / "config.json") << config.dump();
  std::ofstream(path_ / "tokenizer.json") << renamed_tokenizer(read(from / "tokenizer.json"), ids).dump();
  write_weights(from / "model.safetensors", path_ / "model.safetensors", vocab, order);
}

}  // namespace specmoe::test
