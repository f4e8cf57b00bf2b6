#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/nn/gguf.h"
#include "core/nn/model_spec.h"
#include "core/nn/safetensors.h"

namespace specmoe::nn {

/// The GGUF file that a path stands for: a file by that name, or the only one of a folder without config.json. Nothing
/// when the path is something else. Throws Error for a folder that holds several.
std::optional<std::string> find_gguf(const std::filesystem::path& path);

/// The model in a GGUF file. Its metadata is put into the words of config.json and read by the family's own parser, so
/// a GGUF model means what the Hugging Face model means; names are those of GGUF.
ModelSpec gguf_spec(const GgufFile& file);

/// The metadata in the words of config.json.
nlohmann::json gguf_config(const GgufFile& file);

/// The tensors of a GGUF file as the spec wants them: stacked experts one by one, as blk.0.ffn_gate_exps.7.weight, and
/// query and key rows back in the order that the family's rotary positions expect. They borrow from the file, which
/// must outlive them; quantised ones are expanded row by row when they are read.
std::vector<Tensor> gguf_tensors(const GgufFile& file);

/// How the tensors are stored: "Q4_1 x 210, F32 x 61".
std::string gguf_storage(const GgufFile& file);

}  // namespace specmoe::nn
