#include <thrust/execution_policy.h>
#include <thrust/system_error.h>
#include <thrust/tabulate.h>

#include "kernels/check.h"
#include "kernels/cuda/native.h"
#include "kernels/cuda/panel_upload.h"

namespace specmoe::kernels::cuda {

void order_words(const OrderedPanels& panels, std::int64_t words, std::uint32_t* out, Stream& stream) {
  try {
    thrust::tabulate(thrust::cuda::par_nosync.on(native_stream(stream)), out, out + words, panels);
  } catch (const thrust::system_error& error) {
    fail("weights on cuda: ", error.what(), "; try again, or use device cpu");
  }
}

}  // namespace specmoe::kernels::cuda
