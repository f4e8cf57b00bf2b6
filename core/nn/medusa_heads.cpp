#include "core/nn/medusa_heads.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "core/nn/model_family.h"
#include "core/nn/model_loader.h"
#include "core/nn/tensor_taker.h"
#include "core/nn/transformer.h"
#include "kernels/activate.h"
#include "kernels/check.h"

namespace specmoe::nn {

using kernels::DType;
using kernels::PackedMatrix;
using kernels::Range;
using kernels::Rows;

namespace {

namespace fs = std::filesystem;

constexpr const char* kFile = "medusa_lm_head.safetensors";
constexpr int kMostHeads = 64;

/// How many heads the tensors NAME = prefix + "{i}." + ... are of; holes count.
int count_heads(const Checkpoint& checkpoint, const std::string& prefix) {
  int heads = 0;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    if (!name.starts_with(prefix)) continue;
    int head = -1;
    const char* end = name.data() + name.size();
    const auto number = std::from_chars(name.data() + prefix.size(), end, head);
    const bool named = number.ec == std::errc() && number.ptr != end && *number.ptr == '.';
    if (named && head >= 0 && head < kMostHeads) heads = std::max(heads, head + 1);
  }
  return heads;
}

std::int64_t packed_bytes(std::int64_t rows, std::int64_t cols, DType dtype) {
  return static_cast<std::int64_t>(PackedMatrix::bytes_of(rows, cols, dtype));
}

std::string block_stem(const MedusaSpec& spec, int head, int block) {
  return concat(spec.prefix, head, ".", block, ".linear");
}

std::string output_name(const MedusaSpec& spec, int head) {
  return concat(spec.prefix, head, ".", spec.blocks, ".weight");
}

/// What takes the tensors of heads is told of them by these.
ModelSpec taker_spec(const MedusaSpec& spec, const Checkpoint& checkpoint) {
  ModelSpec of_taker;
  of_taker.model_type = "medusa";
  // With a prefix, what lies beside the heads is the model that they were trained on.
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    if (!name.starts_with(spec.prefix)) of_taker.names.ignored.push_back(name);
  }
  return of_taker;
}

}  // namespace

std::int64_t MedusaSpec::parameters() const {
  const std::int64_t block = std::int64_t{hidden_size} * hidden_size + hidden_size;
  return heads * (blocks * block + (own_output ? std::int64_t{vocab_size} * hidden_size : 0));
}

std::int64_t MedusaSpec::weight_bytes(DType dtype) const {
  return heads * (read_bytes(dtype) - (own_output ? 0 : packed_bytes(vocab_size, hidden_size, dtype)));
}

std::int64_t MedusaSpec::read_bytes(DType dtype) const {
  const std::int64_t bias = hidden_size * static_cast<std::int64_t>(sizeof(float));
  return blocks * (packed_bytes(hidden_size, hidden_size, dtype) + bias) + packed_bytes(vocab_size, hidden_size, dtype);
}

Checkpoint open_medusa_heads(const std::string& path) {
  std::error_code ignored;
  const fs::path folder = path;
  if (fs::exists(folder / kFile, ignored)) return Checkpoint(path, kFile);
  const bool only_pickle = fs::exists(folder / "medusa_lm_head.pt", ignored) &&
                           !fs::exists(folder / "model.safetensors", ignored) &&
                           !fs::exists(folder / "model.safetensors.index.json", ignored);
  SPECMOE_CHECK(!only_pickle, path, ": medusa_lm_head.pt is a pickle, which is not read; convert it there in Python: ",
                "import torch, safetensors.torch as s; w = torch.load('medusa_lm_head.pt', map_location='cpu', "
                "weights_only=True); s.save_file({k: v.clone() for k, v in w.items()}, '",
                kFile, "')");
  return Checkpoint(path);
}

MedusaSpec read_medusa_heads(const Checkpoint& checkpoint, const ModelSpec& target) {
  const std::string& path = checkpoint.path();
  const fs::path file = fs::path(path) / "config.json";
  std::error_code ignored;
  SPECMOE_CHECK(fs::exists(file, ignored), "Medusa heads '", path, "' have no config.json");
  const ConfigReader config = ConfigReader::read(file.string());
  MedusaSpec spec;
  spec.name = file.parent_path().lexically_normal().filename().string();
  spec.blocks = static_cast<int>(config.integer("medusa_num_layers", 1, 0, kMaxLayers));
  spec.hidden_size = target.hidden_size;
  spec.vocab_size = target.vocab_size;
  for (const char* prefix : {"", "medusa_head.", "medusa."}) {
    spec.prefix = prefix;
    spec.heads = count_heads(checkpoint, prefix);
    if (spec.heads > 0) break;
  }
  SPECMOE_CHECK(spec.heads > 0, path, ": no Medusa heads; expected tensors 0.0.linear.weight and so on, with ",
                "medusa_head. or medusa. before them or nothing");
  for (int head = 0; head < spec.heads; ++head) spec.own_output |= checkpoint.find(output_name(spec, head)) != nullptr;
  const auto check = [&](const std::string& name, std::int64_t wanted, const char* of_target) {
    const Tensor* tensor = checkpoint.find(name);
    if (tensor == nullptr || tensor->shape.size() != 2 || tensor->shape[0] == wanted) return;
    fail(path, ": these heads were made for another model, ", config.text("base_model_name_or_path", "not named"), ": ",
         tensor->name, " is ", describe(*tensor), ", the target ", of_target, " ", wanted);
  };
  check(block_stem(spec, 0, 0) + ".weight", spec.hidden_size, "has hidden rows of");
  check(output_name(spec, 0), spec.vocab_size, "has a vocabulary of");
  SPECMOE_CHECK(spec.blocks > 0 || spec.own_output, path, ": heads without blocks (medusa_num_layers) and without ",
                "output matrices predict what the target does");
  return spec;
}

std::vector<MedusaTensors> map_medusa_heads(const MedusaSpec& spec, const Checkpoint& checkpoint) {
  const ModelSpec of_taker = taker_spec(spec, checkpoint);
  TensorTaker from(of_taker, checkpoint);
  std::vector<MedusaTensors> heads(static_cast<std::size_t>(spec.heads));
  for (int i = 0; i < spec.heads; ++i) {
    MedusaTensors& head = heads[static_cast<std::size_t>(i)];
    for (int j = 0; j < spec.blocks; ++j) {
      head.blocks.push_back(from.take_linear({block_stem(spec, i, j)}, spec.hidden_size, spec.hidden_size, true));
    }
    if (!spec.own_output) continue;
    head.output = from.take({output_name(spec, i)}, {spec.vocab_size, spec.hidden_size}, TensorUse::kMatrix);
  }
  from.report();
  return heads;
}

PackedMedusa pack_medusa_heads(const std::string& path, const ModelSpec& target, DType dtype, kernels::Backend backend,
                               kernels::ThreadPool& pool) {
  const Checkpoint checkpoint = open_medusa_heads(path);
  PackedMedusa packed{read_medusa_heads(checkpoint, target), {}};
  const std::vector<MedusaTensors> tensors = map_medusa_heads(packed.spec, checkpoint);
  packed.heads.resize(tensors.size());
  JobList jobs;
  const auto pack = [&](PackedMatrix& to, const kernels::WeightView& view) {
    to = PackedMatrix(view.rows, view.cols, dtype, backend);
    jobs.add(static_cast<std::int64_t>(to.bytes()), [&to, view] { to.pack_rows(view); });
  };
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    PackedMedusaHead& head = packed.heads[i];
    head.blocks.resize(tensors[i].blocks.size());
    for (std::size_t j = 0; j < tensors[i].blocks.size(); ++j) {
      pack(head.blocks[j].weight, tensors[i].blocks[j].weight);
      head.blocks[j].bias = tensors[i].blocks[j].bias.row(0);
    }
    if (packed.spec.own_output) pack(head.output, tensors[i].output);
  }
  jobs.run(pool);
  return packed;
}

namespace {

/// Heads on packed weights, run by a team of threads: a barrier per block and one before the argmax.
class CpuMedusaHeads final : public MedusaHeads {
 public:
  /// target, shape  whose output matrix heads without one use, and what becomes of its products
  CpuMedusaHeads(std::vector<PackedMedusaHead> heads, std::shared_ptr<const Weights> target, kernels::LogitShape shape,
                 kernels::Backend backend, std::shared_ptr<kernels::ThreadPool> pool)
      : heads_(std::move(heads)),
        target_(std::move(target)),
        shape_(shape),
        kernels_(backend),
        pool_(std::move(pool)),
        run_([this](Member& member) { run(member); }) {}

  int count() const override { return static_cast<int>(heads_.size()); }

  void forward(int head, Rows<const float> rows, ForwardResult& result) override {
    head_ = &heads_.at(static_cast<std::size_t>(head));
    rows_ = rows;
    for (FloatBuffer& stream : streams_) stream.reserve(static_cast<std::size_t>(rows.rows * rows.cols));
    result.vocab = static_cast<int>(output().rows());
    result.logits.resize(static_cast<std::size_t>(rows.rows * result.vocab));
    result.argmax.resize(static_cast<std::size_t>(rows.rows));
    result_ = &result;
    pool_->run(run_);
  }

 private:
  using Member = kernels::ThreadPool::Member;

  bool borrows() const { return head_->output.rows() == 0; }
  const PackedMatrix& output() const { return borrows() ? target_->head : head_->output; }

  void run(Member& member) {
    Rows<const float> x = rows_;
    for (std::size_t j = 0; j < head_->blocks.size(); ++j) {
      const Rows<float> next = kernels::contiguous(streams_[j % 2].data(), x.rows, x.cols);
      block(head_->blocks[j], x, next, member.shard());
      member.barrier();
      x = next;
    }
    logits(x, member);
  }

  /// next = x + silu(W x + b), this thread's columns.
  void block(const PackedMedusaHead::Block& block, Rows<const float> x, Rows<float> next, kernels::Shard shard) const {
    const Range panels = block.weight.share(shard);
    kernels_.packed_linear(x, block.weight, block.bias.data(), {}, next, panels);
    const std::int64_t end = std::min(x.cols, panels.end * PackedMatrix::kPanel);
    for (std::int64_t t = 0; t < x.rows; ++t) {
      for (std::int64_t d = panels.begin * PackedMatrix::kPanel; d < end; ++d) {
        next.row(t)[d] = x.row(t)[d] + kernels::activate({}, next.row(t)[d], 1.0F);
      }
    }
  }

  void logits(Rows<const float> x, Member& member) const {
    const Rows<float> out = kernels::contiguous(result_->logits.data(), x.rows, std::int64_t{result_->vocab});
    const float* bias = borrows() ? data_or_null(target_->head_bias) : nullptr;
    kernels_.packed_linear(x, output(), bias, {}, out, output().share(member.shard()));
    member.barrier();
    const Range own = kernels::split(x.rows, member.shard());
    if (own.begin == own.end) return;
    for (std::int64_t t = own.begin; borrows() && t < own.end; ++t) shape_.apply(out.row(t), out.cols);
    kernels_.row_argmax({out.row(own.begin), own.end - own.begin, out.cols, out.stride},
                        result_->argmax.data() + own.begin);
  }

  std::vector<PackedMedusaHead> heads_;
  std::shared_ptr<const Weights> target_;
  kernels::LogitShape shape_;
  CpuKernels kernels_;
  std::shared_ptr<kernels::ThreadPool> pool_;
  std::function<void(Member&)> run_;
  FloatBuffer streams_[2];  // [n, D] what one block hands to the next

  const PackedMedusaHead* head_ = nullptr;  // of the running pass
  Rows<const float> rows_;
  ForwardResult* result_ = nullptr;
};

}  // namespace

std::shared_ptr<MedusaHeads> Transformer::medusa_heads(const std::string& path) const {
  auto [spec, heads] = pack_medusa_heads(path, spec_, weights_->dtype, backend_, *pool_);
  return std::make_shared<CpuMedusaHeads>(std::move(heads), head_of_, logit_shape(), backend_,
                                          pool_of_head(spec.read_bytes(weights_->dtype)));
}

}  // namespace specmoe::nn
