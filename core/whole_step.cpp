#include "core/whole_step.h"

namespace specmoe {
namespace {

constinit WholeStepMaker registered = nullptr;

}  // namespace

WholeStepRegistration::WholeStepRegistration(WholeStepMaker maker) { registered = maker; }

WholeStepOffer offer_whole_step(const WholeStepParts& parts) {
  if (registered == nullptr || parts.target->info().device == "cpu") return {};
  return registered(parts);
}

}  // namespace specmoe
