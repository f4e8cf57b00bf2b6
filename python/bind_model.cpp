#include <pybind11/stl.h>

#include <numeric>

#include "core/nn/chat_template.h"
#include "core/nn/device_loader.h"
#include "kernels/check.h"
#include "python/bindings.h"
#include "python/signal_poll.h"

namespace specmoe::python {
namespace {

/// One pass over a text of its own. Experts: of the last position alone; otherwise of none. after: with the result,
/// before another pass may run.
template <class After>
ForwardResult forward(Model& model, const std::vector<TokenId>& tokens, bool want_experts, bool want_logits,
                      const After& after) {
  model.check_process();
  SPECMOE_CHECK(!tokens.empty(), "token_ids: expected one token or more, got none");
  const int limit = model.network->info().max_positions;
  SPECMOE_CHECK(static_cast<std::int64_t>(tokens.size()) <= limit, "token_ids: ", tokens.size(),
                " tokens, the context of ", model.network->info().name, " is ", limit);
  std::vector<std::int32_t> parents(tokens.size());
  std::iota(parents.begin(), parents.end(), -1);
  ForwardResult result;
  result.want_experts = want_experts;
  result.want_logits = want_logits;

  py::gil_scoped_release unlocked;
  const std::lock_guard alone(model.running);
  const std::unique_ptr<KVCache> cache = model.network->new_cache(static_cast<int>(tokens.size()));
  const RowBlock block{cache.get(), tokens, parents, want_experts ? LogitsWanted::kLast : LogitsWanted::kAll};
  model.network->forward(std::span(&block, 1), result);
  after();
  return result;
}

ForwardResult forward(Model& model, const std::vector<TokenId>& tokens, bool want_experts) {
  return forward(model, tokens, want_experts, true, [] {});
}

py::array logits(Model& model, py::handle token_ids) {
  const std::vector<TokenId> tokens = to_token_ids(token_ids, "token_ids");
  ForwardResult result = forward(model, tokens, false);
  return adopt(std::move(result.logits), {static_cast<py::ssize_t>(tokens.size()), result.vocab});
}

Tensor logits_tensor(Model& model, py::handle token_ids) {
  const std::vector<TokenId> tokens = to_token_ids(token_ids, "token_ids");
  Tensor tensor;
  tensor.rows = static_cast<std::int64_t>(tokens.size());
  tensor.cols = model.network->info().vocab_size;
  tensor.cuda = nn::cuda_device(model.network->info().device);
  if (tensor.cuda) {
    forward(model, tokens, false, false, [&] { tensor.memory = nn::device_logits(*model.network); });
  } else {
    auto kept = std::make_shared<std::vector<float>>(forward(model, tokens, false).logits);
    tensor.memory = std::shared_ptr<float>(kept, kept->data());
  }
  return tensor;
}

py::array experts(Model& model, py::handle token_ids) {
  const std::vector<TokenId> tokens = to_token_ids(token_ids, "token_ids");
  ForwardResult result = forward(model, tokens, true);
  const py::ssize_t per_token = model.network->info().experts_per_token;
  return adopt(std::move(result.experts), {result.moe_layers, static_cast<py::ssize_t>(tokens.size()), per_token});
}

void bind_info(py::module_& m) {
  py::class_<ModelInfo> info(m, "ModelInfo", "What a checkpoint is and what it costs: read-only attributes.");
  py::list names;
  const auto field = [&](const char* name, auto member, const char* doc) {
    info.def_readonly(name, member, doc);
    names.append(name);
  };
  field("name", &ModelInfo::name, "Folder name.");
  field("architecture", &ModelInfo::architecture, "model_type of config.json.");
  field("dtype", &ModelInfo::dtype, "Type of the packed weights.");
  field("kv_dtype", &ModelInfo::kv_dtype, "Type of the cached keys and values.");
  field("device", &ModelInfo::device, "Where it runs.");
  field("instruction_set", &ModelInfo::instruction_set, "Back end in use, such as avx2.");
  field("vocab_size", &ModelInfo::vocab_size, "Tokens V.");
  field("max_positions", &ModelInfo::max_positions, "Longest text in tokens, prompt and output together.");
  field("hidden_size", &ModelInfo::hidden_size, "Width D.");
  field("layers", &ModelInfo::layers, "Layers L.");
  field("moe_layers", &ModelInfo::moe_layers, "Mixture-of-experts layers among them.");
  field("experts", &ModelInfo::experts, "Experts E of a mixture-of-experts layer; 0: dense.");
  field("experts_per_token", &ModelInfo::experts_per_token, "Experts K that a token is routed to; 0: dense.");
  field("parameters", &ModelInfo::parameters, "All parameters.");
  field("active_parameters", &ModelInfo::active_parameters, "Parameters read for one token.");
  field("weight_bytes", &ModelInfo::weight_bytes, "Bytes of the packed weights.");
  field("active_weight_bytes", &ModelInfo::active_weight_bytes, "Bytes of them read for one token.");
  field("expert_bytes", &ModelInfo::expert_bytes, "Bytes of one expert of one layer.");
  field("kv_bytes_per_token", &ModelInfo::kv_bytes_per_token, "Bytes of keys and values per token of text.");
  field("stop_tokens", &ModelInfo::stop_tokens, "End-of-text ids of the checkpoint.");
  info.attr("_fields") = py::tuple(names);
  info.def(
      "as_dict",
      [](py::object self) {
        py::dict fields;
        for (py::handle name : self.attr("_fields")) fields[name] = self.attr(py::str(name));
        return fields;
      },
      "All attributes by name.");
  info.def("__repr__",
           [](py::object self) { return py::str("ModelInfo({})").format(self.attr("as_dict")()).cast<std::string>(); });
}

kernels::DType kv_dtype_from_name(const std::string& name) {
  try {
    return kernels::packed_dtype_from_name(name);
  } catch (const Error& error) {
    fail("kv_", error.what());  // "dtype: expected .."
  }
}

std::string fspath(const py::object& path) {
  return py::module_::import("os").attr("fspath")(path).cast<std::string>();
}

void bind_tokenizer(py::module_& m) {
  py::class_<nn::Tokenizer, std::shared_ptr<nn::Tokenizer>>(m, "Tokenizer",
                                                            "Text to token ids and back, as tokenizer.json says.")
      .def_property_readonly("vocab_size", &nn::Tokenizer::vocab_size, "One more than the largest id.")
      .def(
          "encode",
          [](const nn::Tokenizer& self, const std::string& text, bool add_special) {
            return self.encode(text, add_special);
          },
          py::arg("text"), py::arg("add_special") = true,
          "Token ids of a text as a list; add_special adds what the template adds, such as a begin token.")
      .def(
          "decode",
          [](const nn::Tokenizer& self, py::handle token_ids, bool skip_special) {
            return self.decode(to_token_ids(token_ids, "token_ids"), skip_special);
          },
          py::arg("token_ids"), py::arg("skip_special") = true, "The text of token ids; broken UTF-8 becomes U+FFFD.");
}

void bind_chat_template(py::module_& m) {
  py::class_<nn::ChatTemplate>(m, "ChatTemplate", "How a checkpoint writes a conversation: a Jinja template.")
      .def_readonly("text", &nn::ChatTemplate::text, "The template's source.")
      .def_readonly("bos_token", &nn::ChatTemplate::bos_token, "What bos_token stands for in it.")
      .def_readonly("eos_token", &nn::ChatTemplate::eos_token, "What eos_token stands for in it.");
  m.def(
      "chat_template", [](const py::object& path) { return nn::find_chat_template(fspath(path)); }, py::arg("path"),
      "The ChatTemplate of a Hugging Face folder or a GGUF file, None when it has none.");
  m.def(
      "tokenizer_json", [](const py::object& path) { return nn::tokenizer_document(fspath(path)); }, py::arg("path"),
      "The tokenizer.json of a Hugging Face folder, or what the metadata of a GGUF file come to.");
}

}  // namespace

void Model::check_process() const {
  SPECMOE_CHECK(
      process == getpid() || options.pool == nullptr || options.pool->size() == 1, path,
      ": was loaded by another process, whose threads a fork leaves behind; load it in each process, or start "
      "them by multiprocessing's 'spawn'");
}

std::vector<TokenId> to_token_ids(py::handle given, const std::string& what) {
  std::vector<TokenId> ids;
  const auto numbers = as_array(given).cast<py::array>();
  if (numbers.size() == 0) return ids;
  const char kind = numbers.dtype().kind();
  if ((kind != 'i' && kind != 'u') || numbers.ndim() != 1) {
    throw py::type_error(what + ": expected a flat sequence of integer token ids, got " +
                         py::repr(given).cast<std::string>().substr(0, 60));
  }
  const auto wide = py::array_t < std::int64_t, py::array::c_style | py::array::forcecast > (numbers);
  for (const std::int64_t id : std::span(wide.data(), static_cast<std::size_t>(wide.size()))) {
    SPECMOE_CHECK(id >= 0 && id <= INT32_MAX, what, ": ", id, " is no token id");
    ids.push_back(static_cast<TokenId>(id));
  }
  return ids;
}

std::shared_ptr<Model> load(const std::string& path, nn::LoadOptions options) {
  SPECMOE_CHECK(options.threads >= 0, "threads must be at least 0 (0: one per core), got ", options.threads);
  auto model = std::make_shared<Model>();
  model->path = path;
  options.pool = std::make_shared<kernels::ThreadPool>(options.threads);
  options.notice = [](const std::string& line) {
    const py::gil_scoped_acquire locked;
    if (PyErr_WarnEx(PyExc_RuntimeWarning, line.c_str(), 1) != 0) throw py::error_already_set();
  };
  model->options = options;
  options.progress = [poll = SignalPoll{}](std::int64_t, std::int64_t) mutable { poll(); };
  const py::gil_scoped_release unlocked;
  model->network = nn::load_model(path, options);
  model->tokenizer = nn::Tokenizer::find(path);
  return model;
}

void bind_model(py::module_& m) {
  bind_info(m);
  bind_tokenizer(m);
  bind_chat_template(m);

  py::class_<Model, std::shared_ptr<Model>>(m, "Model", "A loaded checkpoint. Made by load().")
      .def_property_readonly(
          "info", [](const Model& self) { return self.network->info(); }, "What it is: ModelInfo.")
      .def_property_readonly(
          "tokenizer", [](const Model& self) { return std::const_pointer_cast<nn::Tokenizer>(self.tokenizer); },
          "Its Tokenizer, or None when the checkpoint has none: prompts are then token ids.")
      .def_readonly("path", &Model::path, "The folder or file it was loaded from.")
      .def("logits", &logits, py::arg("token_ids"),
           "Logits after each position of a text: float32 [T, V].\n\n"
           "token_ids  T ids, a list or an integer array\n"
           "raises     Error when T is 0 or exceeds the context, or an id is outside the vocabulary")
      .def("logits_tensor", &logits_tensor, py::arg("token_ids"),
           "The same as a Tensor, which stays on the model's device: torch.from_dlpack(model.logits_tensor(ids)).\n\n"
           "token_ids  T ids, a list or an integer array")
      .def("experts", &experts, py::arg("token_ids"),
           "Experts that each position is routed to: int32 [MoE layers, T, K], by falling weight.\n\n"
           "token_ids  T ids, a list or an integer array")
      .def("__repr__", [](const Model& self) {
        const ModelInfo& info = self.network->info();
        return concat("<specmoe.Model ", self.path, ": ", info.architecture, ", ", info.parameters, " parameters, ",
                      info.dtype, " on ", info.device, ">");
      });

  const nn::LoadOptions defaults;
  m.def(
      "load",
      [](const py::object& path, const std::string& dtype, const std::string& device, int threads,
         const std::string& kv_dtype, const py::object& cache, bool fast_prefill) {
        nn::LoadOptions options;
        options.dtype = kernels::packed_dtype_from_name(dtype);
        options.kv_dtype = kv_dtype_from_name(kv_dtype);
        options.device = device;
        options.threads = threads;
        if (!cache.is_none()) options.cache = fspath(cache);
        options.fast_prefill = fast_prefill;
        return load(fspath(path), options);
      },
      py::arg("path"), py::arg("dtype") = std::string(kernels::dtype_name(defaults.dtype)),
      py::arg("device") = defaults.device, py::arg("threads") = defaults.threads,
      py::arg("kv_dtype") = std::string(kernels::dtype_name(defaults.kv_dtype)), py::arg("cache") = py::none(),
      py::arg("fast_prefill") = defaults.fast_prefill,
      "Opens a Hugging Face folder or a GGUF file.\n\n"
      "path     folder with config.json and safetensors, and tokenizer.json where there is one; or a .gguf file, "
      "whose\n"
      "         quantised weights are expanded to dtype\n"
      "dtype    'float32', 'bfloat16' or 'int8' (a scale per output), of the packed weights; sums are always float32\n"
      "device   'cpu', 'cuda' or 'cuda:1'; on a device float32 or bfloat16, weights and caches\n"
      "threads  0: one per usable core\n"
      "kv_dtype 'float32', 'bfloat16' or 'int8' (a scale per row and head), of the cached keys and values; drafters of "
      "an\n"
      "         engine take it over\n"
      "cache    folder where the packed weights are kept, and taken from the next time; a file in it that is damaged\n"
      "         or of another checkpoint is made anew, with a RuntimeWarning\n"
      "fast_prefill  on a device, put each 256 tokens of a prompt through cuBLASLt: faster, but a prompt's rows then\n"
      "         have other last bits than the same text decoded token by token\n"
      "raises   Error when anything in the folder is missing, extra, mis-shaped or not supported");
}

}  // namespace specmoe::python
