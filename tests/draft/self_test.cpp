#include <gtest/gtest.h>

#include "core/drafter.h"
#include "kernels/check.h"

namespace specmoe {
namespace {

TEST(Self, RefusesWhatIsNoListOfLayers) {
  for (const char* spec : {"self(skip=x)", "self(skip=3-)", "self(skip=-3)", "self(skip=5-4)", "self(skip=3/3)",
                           "self(skip=3/)", "self(skip=1-2/2)", "self(skip=0-99999)", "self(layers=3)"}) {
    EXPECT_THROW(drafters().create(spec), Error) << spec;
  }
  for (const char* spec : {"self", "self(2)", "self(experts=0,skip=0)", "self(skip=1/3-5/9)"}) {
    EXPECT_NO_THROW(drafters().create(spec)) << spec;
  }
}

}  // namespace
}  // namespace specmoe
