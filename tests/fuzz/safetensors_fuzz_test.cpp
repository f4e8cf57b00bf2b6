// Whatever a safetensors file holds, its tensors lie inside it or it is a specmoe::Error.
#include <cstring>

#include "core/nn/checkpoint.h"
#include "tests/fuzz/byte_mutator.h"
#include "tests/nn/model_fixture.h"

namespace specmoe::nn::testing {
namespace {

const std::vector<std::string> kWords = {"0",
                                         "1",
                                         "-1",
                                         "4",
                                         "18446744073709551615",
                                         "9223372036854775808",
                                         "1e3",
                                         "null",
                                         "[]",
                                         "{}",
                                         "\"F32\"",
                                         "\"F4\"",
                                         "\"BF16\"",
                                         "[0,0]",
                                         "[0,4]",
                                         ",",
                                         "}",
                                         "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},",
                                         "\"__metadata__\":{\"a\":1},",
                                         std::string(1, '\0'),
                                         "\xff"};

struct File {
  std::string header;
  std::string data;
};
File split_file(const std::string& bytes) {
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  return {bytes.substr(8, length), bytes.substr(8 + length)};
}

TEST(SafetensorsFuzz, Header) {
  constexpr int kRounds = 4000;
  // The first entries of a real header: enough kinds of entry, and short mutants.
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[3,4],"data_offsets":[0,24]},)"
      R"("b":{"dtype":"F32","shape":[],"data_offsets":[24,28]},"c":{"dtype":"F8_E4M3","shape":[0,7],)"
      R"("data_offsets":[28,28]},"d":{"dtype":"I64","shape":[2],"data_offsets":[28,44]}})";
  constexpr std::uint64_t kBytes = 44;
  ASSERT_EQ(parse_safetensors_header(header, kBytes, "fuzz").size(), 4U);
  specmoe::testing::ByteMutator mutate(11, kWords);
  int parsed = 0;
  for (int round = 0; round < kRounds; ++round) {
    try {
      const std::vector<Tensor> tensors = parse_safetensors_header(mutate(header), kBytes, "fuzz");
      ++parsed;
      for (const Tensor& tensor : tensors) ASSERT_TRUE(tensor.begin <= tensor.end && tensor.end <= kBytes);
    } catch (const Error& error) {
      ASSERT_GT(std::string(error.what()).size(), 10U);
    }
  }
  EXPECT_GT(parsed, 20);
  EXPECT_LT(parsed, kRounds);
}

/// Whole folders: damaged length, header or data, then mapped and loaded.
TEST(SafetensorsFuzz, Folder) {
  constexpr int kRounds = 200;
  const FolderCopy copy(load_fixture("llama_yarn").folder);
  const std::string original = read_file(copy / "model.safetensors");
  const File file = split_file(original);
  specmoe::testing::ByteMutator mutate(13, kWords);
  for (int round = 0; round < kRounds; ++round) {
    std::string bytes = original;
    if (round % 4 == 0) {
      for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(mutate.below(round % 8 == 0 ? 256 : 3));
    } else if (round % 4 == 1) {
      bytes.resize(mutate.below(bytes.size()));
    } else {
      const std::string header = mutate(file.header);
      const std::uint64_t length = header.size();
      bytes = std::string(reinterpret_cast<const char*>(&length), 8) + header + file.data;
    }
    write_file(copy / "model.safetensors", bytes);
    try {
      load(copy.path());
    } catch (const Error& error) {
      ASSERT_GT(std::string(error.what()).size(), 10U);
    }
  }
}

}  // namespace
}  // namespace specmoe::nn::testing
