#include "kernels/backend.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "kernels/layer_norm.h"
#include "kernels/linear.h"
#include "kernels/moe_ffn.h"
#include "kernels/moe_router.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/sampling.h"
#include "kernels/tree_attention.h"

namespace specmoe::kernels {
namespace {

TEST(BackendTest, NamesGoBothWays) {
  for (const Backend backend :
       {Backend::kScalar, Backend::kAvx2, Backend::kAvx512, Backend::kAvx512Bf16, Backend::kAmx, Backend::kCuda}) {
    EXPECT_EQ(backend_from_name(backend_name(backend)), backend);
  }
  try {
    backend_from_name("neon");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("scalar, avx2, avx512, avx512_bf16, amx, cuda"), std::string::npos)
        << error.what();
  }
}

TEST(BackendTest, EnvironmentChooses) {
  const char* before = std::getenv("SPECMOE_ISA");
  const std::string saved = before == nullptr ? "" : before;
  setenv("SPECMOE_ISA", "scalar", 1);
  EXPECT_EQ(default_cpu_backend(), Backend::kScalar);
  setenv("SPECMOE_ISA", "cuda", 1);
  EXPECT_THROW(default_cpu_backend(), Error);
  setenv("SPECMOE_ISA", "pentium", 1);
  EXPECT_THROW(default_cpu_backend(), Error);
  unsetenv("SPECMOE_ISA");
  EXPECT_TRUE(backend_available(default_cpu_backend()));
  if (before != nullptr) setenv("SPECMOE_ISA", saved.c_str(), 1);
}

template <class Signature>
void expect_complete(const Kernel<Signature>& kernel) {
  for (const Backend backend : {Backend::kScalar, Backend::kAvx2, Backend::kAvx512}) {
    EXPECT_TRUE(kernel.has(backend)) << kernel.name() << " lacks " << backend_name(backend);
  }
  EXPECT_EQ(kernel.up_to(Backend::kScalar), kernel.on(Backend::kScalar));
  EXPECT_THROW(kernel.on(Backend::kCuda), Error);
}

TEST(BackendTest, EveryKernelHasEveryCpuImplementation) {
  expect_complete(packed_linear);
  expect_complete(layer_norm);
  expect_complete(moe_router);
  expect_complete(moe_up);
  expect_complete(moe_down);
  expect_complete(rms_norm);
  expect_complete(rope);
  expect_complete(row_argmax);
  expect_complete(sampling_probs);
  expect_complete(tree_attention);
}

TEST(BackendTest, ProductsHaveInstructionSetsOfTheirOwnAndTheOthersFallBack) {
  for (const Backend backend : {Backend::kAvx512Bf16, Backend::kAmx}) {
    EXPECT_TRUE(packed_linear.has(backend) && moe_up.has(backend) && moe_down.has(backend));
  }
  EXPECT_EQ(tree_attention.up_to(Backend::kAmx), tree_attention.on(Backend::kAvx512));
}

}  // namespace
}  // namespace specmoe::kernels
