#include "core/acceptance.h"

namespace specmoe {

void AcceptancePolicy::judge(Draft<Rational>&, ProbRows<Rational>&, UniformSource<Rational>&, Verdict&) const {
  fail("this policy decides in doubles only; prove it in doubles, or write it as a PolicyOf");
}

}  // namespace specmoe
