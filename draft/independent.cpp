#include "draft/model_drafter.h"
#include "kernels/check.h"

namespace specmoe {
namespace {

/// A separate, smaller language model with the target's vocabulary (Leviathan et al. 2023, arXiv:2211.17192).
class Independent final : public ModelDrafter {
 public:
  explicit Independent(Params& params)
      : ModelDrafter(params.name()),
        path_(params.required_text("path", "checkpoint folder of the draft model")),
        dtype_(
            params.text("dtype", "target", "of its packed weights: float32, bfloat16, int8, or what the target has")) {}

  std::vector<DraftCheckpoint> checkpoints() const override { return {{path_}}; }

  void attach(const DraftContext& context) override {
    SPECMOE_CHECK(context.load_model != nullptr, "independent: this engine was given no way to load the draft model '",
                  path_, "'");
    const ModelInfo& target = context.target->info();
    model_ = context.load_model(path_, dtype_ == "target" ? target.dtype : dtype_);
    const int wanted = target.vocab_size;
    SPECMOE_CHECK(model_->info().vocab_size == wanted, "independent: the drafter's vocabulary has ",
                  model_->info().vocab_size, " tokens, the target's ", wanted, "; they must be the same");
  }

 private:
  std::string path_;
  std::string dtype_;
};

SPECMOE_REGISTER(drafters(), "independent", Independent, "a separate small language model (Leviathan et al. 2023)");

}  // namespace
}  // namespace specmoe
