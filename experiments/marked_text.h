#pragma once

#include <cstddef>
#include <iosfwd>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/nn/text_stop.h"
#include "core/trace.h"

namespace specmoe::cli {

/// How text that came from accepted draft tokens is set apart: kAnsi green and underlined, kBrackets ⟦so⟧.
enum class MarkStyle { kNone, kAnsi, kBrackets };

/// `auto` is ansi when stdout is a terminal (and NO_COLOR is unset), else none. Throws Error for an unknown name.
MarkStyle mark_style(const std::string& name);

/// Prints one sequence's text while its tokens come, draft tokens marked; nothing from a stop string on is printed.
class TextPrinter {
 public:
  TextPrinter(std::ostream& out, MarkStyle style, std::shared_ptr<const nn::Tokenizer> tokenizer,
              std::vector<std::string> stops);

  /// True when the token completed a stop string.
  bool push(TokenId token, bool from_draft);
  /// Prints the rest and closes the last mark.
  void finish();
  const std::string& text() const { return stop_.text(); }

 private:
  /// Bytes of the text up to `end` came from a draft token, or not.
  struct Piece {
    std::size_t end;
    bool from_draft;
  };
  void extend(std::size_t before, bool from_draft);
  void print_settled();
  void set_mark(bool on);

  std::ostream& out_;
  MarkStyle style_;
  nn::TextStop stop_;
  std::vector<Piece> pieces_;
  std::size_t next_piece_ = 0;
  std::size_t printed_ = 0;
  bool last_from_draft_ = false;
  bool marked_ = false;
};

/// Prints the text of a finished request and returns it unmarked.
std::string print_record(std::ostream& out, MarkStyle style, std::shared_ptr<const nn::Tokenizer> tokenizer,
                         const std::vector<std::string>& stops, const RequestRecord& record);

}  // namespace specmoe::cli
