#include <charconv>

#include "draft/model_drafter.h"
#include "kernels/check.h"

namespace specmoe {
namespace {

/// The target drafts for itself, by fewer experts a token or without some of its layers: no second model to train, to
/// store or to match, and no further weights in memory.
///
/// source   layers left out: Zhang et al. 2023 (Draft & Verify), arXiv:2309.08168
/// differs  it keeps keys and values of its own, where they draft on the target's: what is proposed after a text then
///          depends on the text alone
class Self final : public ModelDrafter {
 public:
  explicit Self(Params& params) : ModelDrafter(params.name()) {
    part_.experts_per_token = params.integer("experts", 1, "experts a token; 0: as many as the target uses");
    const std::string skip = params.text("skip", "", "layers left out, counted from 0, such as 4 or 8-11/16-19");
    if (!skip.empty()) part_.skipped_layers = parse_layers(skip);
  }

  void attach(const DraftContext& context) override {
    try {
      model_ = context.target->partial(part_);
    } catch (const Error& error) {
      fail("self: ", error.what());
    }
  }

 private:
  static std::vector<int> parse_layers(const std::string& text) {
    constexpr int kMostLayers = 4096;  // a range is written out before any model is there to compare it with
    std::vector<int> layers;
    for (const char *at = text.data(), *end = at + text.size();; ++at) {
      int first = 0;
      auto parsed = std::from_chars(at, end, first);
      int last = first;
      if (parsed.ec == std::errc() && parsed.ptr != end && *parsed.ptr == '-') {
        parsed = std::from_chars(parsed.ptr + 1, end, last);
      }
      const int next = layers.empty() ? 0 : layers.back() + 1;
      SPECMOE_CHECK(parsed.ec == std::errc() && (parsed.ptr == end || *parsed.ptr == '/') && first >= next &&
                        last >= first && last < kMostLayers,
                    "self: skip must be ascending layers or ranges of them, such as 4 or 8-11/16-19, got '", text, "'");
      for (int layer = first; layer <= last; ++layer) layers.push_back(layer);
      at = parsed.ptr;
      if (at == end) return layers;
    }
  }

  ModelPart part_;
};

SPECMOE_REGISTER(drafters(), "self", Self, "the target with fewer experts or layers (Draft & Verify)");

}  // namespace
}  // namespace specmoe
