#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "core/nn/tokenizer.h"
#include "core/types.h"

namespace specmoe::nn {

/// The text of one sequence as its tokens come, ended by the first stop string in it. Belongs into Request::on_token:
///
///     auto stop = std::make_shared<TextStop>(tokenizer, strings);
///     request.on_token = [stop](TokenId token, bool) { return stop->push(token); };
class TextStop {
 public:
  /// stops  may be empty: then it only decodes. Throws Error for an empty string among them
  TextStop(std::shared_ptr<const Tokenizer> tokenizer, std::vector<std::string> stops);

  /// Takes the next token. True when it completes a stop string: the text is over, later tokens are ignored.
  bool push(TokenId token);
  /// No more tokens will come: what the decoder held back joins the text.
  void finish();

  /// Everything so far; a completed stop string and what follows it are cut off.
  const std::string& text() const { return text_; }
  /// Leading bytes of text() that can be shown: what follows may turn out to begin a stop string.
  std::size_t settled() const { return settled_; }
  bool stopped() const { return stopped_; }

 private:
  bool append(const std::string& piece);
  bool cut(std::size_t from);
  std::size_t unsettled_tail() const;

  StreamDecoder decoder_;
  std::vector<std::string> stops_;
  std::size_t longest_ = 0;
  std::string text_;
  std::size_t settled_ = 0;
  bool stopped_ = false;
};

}  // namespace specmoe::nn
