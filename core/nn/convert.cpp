#include "core/nn/convert.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/nn/convert_source.h"
#include "core/nn/safetensors_writer.h"
#include "core/nn/sha256.h"
#include "kernels/check.h"
#include "kernels/element.h"

namespace specmoe::nn {

using kernels::DType;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kPieceElements = 1 << 20;

/// Rows [first, first + count) of a tensor as it will lie in the new file.
struct Piece {
  std::int64_t first, count;
};

/// A tensor in the new checkpoint.
struct Target {
  const StoredTensor* tensor;
  bool int8;
  bool by_inputs;

  Target(const StoredTensor& stored, DType dtype)
      : tensor(&stored),
        int8(dtype == DType::kInt8 && stored.use == TensorUse::kMatrix),
        by_inputs(stored.by_inputs && !int8) {}

  bool exact() const { return tensor->use == TensorUse::kExact; }
  /// As its bytes are. Values that lie otherwise, in a GGUF file, are written as float32.
  bool copied() const { return exact() && !tensor->source->read_row; }
  bool turned() const { return by_inputs != tensor->source_by_inputs; }
  std::int64_t height() const { return by_inputs ? tensor->cols : tensor->rows; }  // of one matrix
  std::int64_t width() const { return by_inputs ? tensor->rows : tensor->cols; }
  std::int64_t elements() const { return tensor->experts * tensor->rows * tensor->cols; }

  /// A matrix that is turned must be there whole.
  std::int64_t rows_at_a_time() const {
    return turned() ? height() : std::max<std::int64_t>(1, kPieceElements / std::max<std::int64_t>(1, width()));
  }
};

const Tensor& source_of(const Target& target) { return *target.tensor->source; }

/// Float32 rows of a piece, in the new layout.
std::vector<float> read_piece(const Target& target, const Piece& piece) {
  const StoredTensor& tensor = *target.tensor;
  const std::int64_t width = target.width();
  std::vector<float> values(static_cast<std::size_t>(piece.count * width));
  if (!target.turned()) {
    for (std::int64_t r = 0; r < piece.count; ++r) {
      std::ranges::copy(tensor.view.row(piece.first + r), values.begin() + r * width);
    }
    return values;
  }
  const std::int64_t first = piece.first / target.height() * width;  // the source's rows are our columns
  for (std::int64_t col = 0; col < width; ++col) {
    const std::vector<float> line = tensor.view.row(first + col);
    for (std::int64_t r = 0; r < piece.count; ++r) {
      values[static_cast<std::size_t>(r * width + col)] = line[static_cast<std::size_t>(r)];
    }
  }
  return values;
}

void note(float source, float rounded, TensorRounding& rounding) {
  const double difference = double{rounded} - double{source};
  rounding.squared_source += double{source} * double{source};
  rounding.squared_difference += difference * difference;
  rounding.largest_difference = std::max(rounding.largest_difference, std::abs(difference));
}

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

void write_int8(const Target& target, const Piece& piece, const std::vector<float>& values, SafetensorsWriter& file,
                TensorRounding& rounding) {
  const auto width = static_cast<std::size_t>(target.width());
  std::vector<std::int8_t> rounded(values.size());
  std::vector<float> scales(static_cast<std::size_t>(piece.count));
  for (std::size_t row = 0; row < scales.size(); ++row) {
    scales[row] = kernels::round_to_int8(std::span(values).subspan(row * width, width), rounded.data() + row * width);
    for (std::size_t i = row * width; i < (row + 1) * width; ++i) {
      note(values[i], static_cast<float>(rounded[i]) * scales[row], rounding);
    }
  }
  const auto first = static_cast<std::uint64_t>(piece.first);
  file.write(target.tensor->name, first * width, bytes_of(rounded));
  file.write(target.tensor->name + "_scale", first * sizeof(float), bytes_of(scales));
}

void write_bfloat16(const Target& target, const Piece& piece, const std::vector<float>& values, SafetensorsWriter& file,
                    TensorRounding& rounding) {
  std::vector<std::uint16_t> rounded(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    rounded[i] = kernels::float_to_bfloat16(values[i]);
    note(values[i], kernels::bfloat16_to_float(rounded[i]), rounding);
  }
  file.write(target.tensor->name, static_cast<std::uint64_t>(piece.first * target.width()) * sizeof(std::uint16_t),
             bytes_of(rounded));
}

void write_piece(const Target& target, const Piece& piece, SafetensorsWriter& file, TensorRounding& rounding) {
  const std::vector<float> values = read_piece(target, piece);
  if (target.int8) {
    write_int8(target, piece, values, file, rounding);
  } else {
    write_bfloat16(target, piece, values, file, rounding);
  }
  SPECMOE_CHECK(std::isfinite(rounding.squared_difference), "tensor ", target.tensor->name,
                " holds values that are not finite; the checkpoint is damaged");
}

void write_exact(const Target& target, SafetensorsWriter& file) {
  const StoredTensor& tensor = *target.tensor;
  if (target.copied())
    return file.write(tensor.name, 0, {tensor.source->data, tensor.source->end - tensor.source->begin});
  const auto row_bytes = static_cast<std::uint64_t>(tensor.cols) * sizeof(float);
  for (std::int64_t row = 0; row < tensor.rows; ++row) {
    file.write(tensor.name, static_cast<std::uint64_t>(row) * row_bytes, bytes_of(tensor.view.row(row)));
  }
}

void add_new_tensors(const Target& target, std::vector<NewTensor>& all) {
  const StoredTensor& tensor = *target.tensor;
  const Tensor& source = source_of(target);
  if (target.exact()) {
    const auto floats = static_cast<std::uint64_t>(target.elements()) * sizeof(float);
    all.push_back({tensor.name, target.copied() ? source.dtype : "F32", source.shape,
                   target.copied() ? source.end - source.begin : floats});
    return;
  }
  std::vector<std::int64_t> shape = {target.height(), target.width()};
  if (source.shape.size() > 2) shape.insert(shape.begin(), tensor.experts);
  const auto elements = static_cast<std::uint64_t>(target.elements());
  all.push_back({tensor.name, target.int8 ? "I8" : "BF16", shape, elements * (target.int8 ? 1 : 2)});
  if (!target.int8) return;
  shape.pop_back();
  all.push_back({tensor.name + "_scale", "F32", shape, elements / static_cast<std::uint64_t>(tensor.cols) * 4});
}

/// In the format of sha256sum.
std::string hash_list(const Conversion& conversion) {
  std::string list;
  for (const auto& [name, hash] : conversion.source_sha256) list += hash + "  " + name + "\n";
  return list;
}

void add_hashing(const ConversionSource& source, Conversion& done, JobList& jobs) {
  const auto add = [&](const fs::path& file) {
    std::string& hash = done.source_sha256[file.filename().string()];
    const auto bytes = static_cast<std::int64_t>(fs::file_size(file));
    jobs.add(bytes, [&hash, file] { hash = sha256_of_file(file.string()); });
    return bytes;
  };
  for (const std::string& file : source.checkpoint().files()) done.source_bytes += add(file);
  if (const auto config = source.config_file()) add(*config);
}

/// Every piece of every tensor, with where its rounding is noted.
class Converter {
 public:
  Converter(const ConversionSource& source, DType dtype) {
    for (const StoredTensor& tensor : source.tensors()) targets_.emplace_back(tensor, dtype);
  }

  std::vector<NewTensor> new_tensors() const {
    std::vector<NewTensor> all;
    for (const Target& target : targets_) add_new_tensors(target, all);
    return all;
  }

  void add_jobs(SafetensorsWriter& file, JobList& jobs) {
    roundings_.resize(targets_.size());
    for (std::size_t i = 0; i < targets_.size(); ++i) add_jobs(targets_[i], roundings_[i], file, jobs);
  }

  /// Sums in one order, however the pieces were spread.
  std::vector<TensorRounding> roundings() const {
    std::vector<TensorRounding> all;
    for (std::size_t i = 0; i < targets_.size(); ++i) {
      if (targets_[i].exact()) continue;
      TensorRounding& sum = all.emplace_back();
      for (const TensorRounding& piece : roundings_[i]) sum.add(piece);
      sum.name = targets_[i].tensor->name;
      sum.layer = targets_[i].tensor->layer;
    }
    return all;
  }

 private:
  static void add_jobs(const Target& target, std::vector<TensorRounding>& roundings, SafetensorsWriter& file,
                       JobList& jobs) {
    if (target.exact()) {
      jobs.add(target.elements() * 4, [&target, &file] { write_exact(target, file); });
      return;
    }
    const std::int64_t rows = target.tensor->experts * target.height();
    const std::int64_t step = target.rows_at_a_time();
    roundings.resize(static_cast<std::size_t>((rows + step - 1) / step));
    for (std::int64_t first = 0; first < rows; first += step) {
      const Piece piece{first, std::min(step, rows - first)};
      TensorRounding& rounding = roundings[static_cast<std::size_t>(first / step)];
      jobs.add(piece.count * target.width() * 2,
               [&target, piece, &file, &rounding] { write_piece(target, piece, file, rounding); });
    }
  }

  std::vector<Target> targets_;
  std::vector<std::vector<TensorRounding>> roundings_;  // of each target, by piece
};

}  // namespace

void TensorRounding::add(const TensorRounding& more) {
  squared_source += more.squared_source;
  squared_difference += more.squared_difference;
  largest_difference = std::max(largest_difference, more.largest_difference);
}

double TensorRounding::relative() const {
  return squared_source > 0 ? std::sqrt(squared_difference / squared_source) : 0.0;
}

std::int64_t conversion_bytes(const std::string& path, DType dtype, int threads) {
  const ConversionSource source(path);
  std::int64_t most = 0;
  for (const StoredTensor& tensor : source.tensors()) {
    const Target target(tensor, dtype);
    if (!target.exact()) most = std::max(most, target.rows_at_a_time() * target.width());
  }
  constexpr std::int64_t kBytesPerElement = sizeof(float) + sizeof(std::uint16_t);
  return threads * most * kBytesPerElement + ReleasingProgress::kBytesBetween;
}

Conversion convert_checkpoint(const std::string& path, const std::string& folder, DType dtype,
                              kernels::ThreadPool& pool, const WorkProgress& progress) {
  SPECMOE_CHECK(dtype == DType::kInt8 || dtype == DType::kBFloat16, "convert: expected int8 or bfloat16, got ",
                kernels::dtype_name(dtype));
  const ConversionSource source(path);
  Conversion done;
  JobList jobs;
  add_hashing(source, done, jobs);
  Converter converter(source, dtype);
  SafetensorsWriter file((fs::path(folder) / "model.safetensors").string(), converter.new_tensors(),
                         {{"format", "pt"}, {"made_by", "specmoe convert"}});
  converter.add_jobs(file, jobs);
  ReleasingProgress releasing(source.checkpoint(), progress);
  jobs.run(pool, std::ref(releasing));
  done.tensors = converter.roundings();
  done.data_sha256 = file.finish(sha256_hex(hash_list(done)));
  done.bytes = static_cast<std::int64_t>(fs::file_size(fs::path(folder) / "model.safetensors"));
  source.write_companions(folder, dtype);
  return done;
}

}  // namespace specmoe::nn
