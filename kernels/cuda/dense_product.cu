#include "kernels/cuda/dense_product.h"

#include <cublasLt.h>

#include <map>

#include "kernels/check.h"
#include "kernels/cuda/native.h"

namespace specmoe::kernels::cuda {
namespace {

void check(cublasStatus_t status, const char* call) {
  SPECMOE_CHECK(status == CUBLAS_STATUS_SUCCESS, call, ": ", cublasLtGetStatusName(status), ", ",
                cublasLtGetStatusString(status), "; load the model without fast_prefill");
}

#define SPECMOE_CUBLAS_CHECK(call) check((call), #call)

/// A description of cuBLASLt's, destroyed with its owner.
template <class Handle, cublasStatus_t (*kDestroy)(Handle)>
struct Owned {
  Handle handle = nullptr;
  Owned() = default;
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() {
    if (handle != nullptr) kDestroy(handle);
  }
};
using Library = Owned<cublasLtHandle_t, cublasLtDestroy>;
using Operation = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

/// A product as cuBLASLt sees it, whose matrices are stored by columns: out^T [outputs, rows] = weight x^T.
struct Product {
  Operation operation;
  Layout weight, x, out;
  cublasLtMatmulAlgo_t algorithm = {};

  Product(const ProductShape& shape, cublasLtHandle_t library) {
    const cudaDataType_t type = shape.dtype == DType::kFloat32 ? CUDA_R_32F : CUDA_R_16BF;
    // Pedantic: no TF32 and no products put together of narrower ones, whatever the environment asks for.
    const cublasComputeType_t compute =
        shape.dtype == DType::kFloat32 ? CUBLAS_COMPUTE_32F_PEDANTIC : CUBLAS_COMPUTE_32F;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const auto inputs = static_cast<std::uint64_t>(shape.inputs), outputs = static_cast<std::uint64_t>(shape.outputs);
    const auto rows = static_cast<std::uint64_t>(shape.rows);
    SPECMOE_CUBLAS_CHECK(cublasLtMatmulDescCreate(&operation.handle, compute, CUDA_R_32F));
    SPECMOE_CUBLAS_CHECK(
        cublasLtMatmulDescSetAttribute(operation.handle, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)));
    SPECMOE_CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&weight.handle, type, inputs, outputs, shape.inputs));
    SPECMOE_CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&x.handle, type, inputs, rows, shape.inputs));
    SPECMOE_CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&out.handle, CUDA_R_32F, outputs, rows, shape.outputs));
    choose(shape, library);
  }

 private:
  void choose(const ProductShape& shape, cublasLtHandle_t library) {
    Preference preference;
    const std::size_t workspace = kDenseWorkspaceBytes;
    const std::uint32_t unsplit = CUBLASLT_REDUCTION_SCHEME_NONE;
    SPECMOE_CUBLAS_CHECK(cublasLtMatmulPreferenceCreate(&preference.handle));
    SPECMOE_CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(
        preference.handle, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof(workspace)));
    SPECMOE_CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(
        preference.handle, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &unsplit, sizeof(unsplit)));
    cublasLtMatmulHeuristicResult_t best = {};
    int found = 0;
    SPECMOE_CUBLAS_CHECK(cublasLtMatmulAlgoGetHeuristic(library, operation.handle, weight.handle, x.handle, out.handle,
                                                        out.handle, preference.handle, 1, &best, &found));
    SPECMOE_CHECK(found == 1, "cuBLASLt has no product of ", shape.rows, " rows with ", dtype_name(shape.dtype), " [",
                  shape.outputs, ", ", shape.inputs, "]; load the model without fast_prefill");
    algorithm = best.algo;
  }
};

}  // namespace

struct DenseProduct::State {
  Stream& stream;
  Library library;
  DeviceArray<std::byte> workspace;
  std::map<ProductShape, std::unique_ptr<Product>> products;
};

DenseProduct::DenseProduct(Stream& stream) : state_(new State{stream, {}, {}, {}}) {
  native_stream(stream);  // the library is opened for the device in use
  SPECMOE_CUBLAS_CHECK(cublasLtCreate(&state_->library.handle));
  state_->workspace = DeviceArray<std::byte>(kDenseWorkspaceBytes, stream.device());
}
DenseProduct::~DenseProduct() = default;

void DenseProduct::multiply(const ProductShape& shape, const void* x, const void* weight, float* out) {
  const cudaStream_t stream = native_stream(state_->stream);
  std::unique_ptr<Product>& product = state_->products[shape];
  if (product == nullptr) product = std::make_unique<Product>(shape, state_->library.handle);
  const float one = 1.0f, zero = 0.0f;
  SPECMOE_CUBLAS_CHECK(cublasLtMatmul(state_->library.handle, product->operation.handle, &one, weight,
                                      product->weight.handle, x, product->x.handle, &zero, out, product->out.handle,
                                      out, product->out.handle, &product->algorithm, state_->workspace.data(),
                                      kDenseWorkspaceBytes, stream));
}

}  // namespace specmoe::kernels::cuda
