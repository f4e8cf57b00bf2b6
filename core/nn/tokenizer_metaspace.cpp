#include "core/nn/tokenizer_metaspace.h"

#include "kernels/check.h"

namespace specmoe::nn {
namespace {

PrependScheme scheme_from_name(const std::string& name, const std::string& where) {
  if (name == "always") return PrependScheme::kAlways;
  if (name == "first") return PrependScheme::kFirst;
  SPECMOE_CHECK(name == "never", "tokenizer.json: ", where, " Metaspace: prepend_scheme ", in_quotes(name),
                " is not one of always, first, never");
  return PrependScheme::kNever;
}

}  // namespace

MetaspaceOptions read_metaspace(const JsonComponent& component) {
  component.allow_only({"replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"});
  MetaspaceOptions options;
  options.replacement = component.character("replacement");
  options.split = component.flag("split", true);
  const bool prefix = component.flag("add_prefix_space", true);
  const std::string scheme =
      component.has("prepend_scheme") ? component.text("prepend_scheme") : (prefix ? "always" : "never");
  options.prepend = scheme_from_name(scheme, component.where());
  SPECMOE_CHECK(prefix || options.prepend == PrependScheme::kNever, "tokenizer.json: ", component.where(),
                " Metaspace: add_prefix_space false contradicts prepend_scheme ", in_quotes(scheme));
  return options;
}

}  // namespace specmoe::nn
