#include "core/nn/translated_model.h"
#include "draft/model_drafter.h"
#include "kernels/check.h"

namespace specmoe {
namespace {

std::shared_ptr<const nn::Tokenizer> tokenizer_of(const ModelInfo& model, const char* role) {
  const auto tokenizer = model.path.empty() ? nullptr : nn::Tokenizer::find(model.path);
  SPECMOE_CHECK(tokenizer != nullptr, "independent: vocabulary=shared needs the tokenizers of both models; the ", role,
                " '", model.path.empty() ? model.name : model.path,
                "' has none: put its tokenizer.json there, or draft with a model of the target's own vocabulary");
  return tokenizer;
}

/// A separate, smaller language model (Leviathan et al. 2023, arXiv:2211.17192): of the target's vocabulary, or
/// drafting the tokens that both vocabularies have (Timor et al. 2025, arXiv:2502.05202; see nn::SharedVocabulary).
class Independent final : public ModelDrafter {
 public:
  explicit Independent(Params& params)
      : ModelDrafter(params.name()),
        path_(params.required_text("path", "checkpoint folder of the draft model")),
        dtype_(
            params.text("dtype", "target", "of its packed weights: float32, bfloat16, int8, or what the target has")) {
    const std::string vocabulary = params.text(
        "vocabulary", "same", "same: the target's own; shared: another, drafting the tokens that both have");
    SPECMOE_CHECK(vocabulary == "same" || vocabulary == "shared",
                  "independent: vocabulary must be same or shared, got '", vocabulary, "'");
    shared_ = vocabulary == "shared";
  }

  std::vector<DraftCheckpoint> checkpoints() const override { return {{path_}}; }

  void attach(const DraftContext& context) override {
    SPECMOE_CHECK(context.load_model != nullptr, "independent: this engine was given no way to load the draft model '",
                  path_, "'");
    const ModelInfo& target = context.target->info();
    model_ = context.load_model(path_, dtype_ == "target" ? target.dtype : dtype_);
    if (shared_) return translate(target);
    const int wanted = target.vocab_size;
    SPECMOE_CHECK(model_->info().vocab_size == wanted, "independent: the drafter's vocabulary has ",
                  model_->info().vocab_size, " tokens, the target's ", wanted,
                  "; they must be the same, or vocabulary=shared drafts with the tokens that both have");
  }

  /// Whole steps on a device know no second vocabulary.
  std::optional<DraftRecipe> recipe() const override { return shared_ ? std::nullopt : ModelDrafter::recipe(); }

 private:
  void translate(const ModelInfo& target) {
    const auto text = tokenizer_of(target, "target");
    const auto draft_text = tokenizer_of(model_->info(), "drafter");
    try {
      nn::SharedVocabulary vocabulary({*text, target}, {*draft_text, model_->info()});
      model_ = std::make_shared<nn::TranslatedModel>(model_, std::move(vocabulary));
    } catch (const Error& error) {
      fail("independent: ", error.what());
    }
  }

  std::string path_;
  std::string dtype_;
  bool shared_ = false;
};

SPECMOE_REGISTER(drafters(), "independent", Independent, "a separate small language model (Leviathan et al. 2023)");

}  // namespace
}  // namespace specmoe
