#include "core/params.h"

#include <gtest/gtest.h>

#include "kernels/check.h"

namespace specmoe {
namespace {

template <class Call>
std::string error_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Params, ReadsPositionalAndNamedValues) {
  Params params = Params::parse(" expansion( 2, 3 ,1, law=iid ) ");
  EXPECT_EQ(params.name(), "expansion");
  EXPECT_EQ(params.integers("widths", {1}, ""), (std::vector<std::int64_t>{2, 3, 1}));
  EXPECT_EQ(params.text("law", "top_k", ""), "iid");
  params.finish();
  EXPECT_EQ(params.canonical(), "expansion(2,3,1,law=iid)");
}

TEST(Params, CanonicalSpellingReadsBackAsItself) {
  Params params = Params::parse("typical(0.25)");
  EXPECT_DOUBLE_EQ(params.real("epsilon", 0.3, ""), 0.25);
  EXPECT_DOUBLE_EQ(params.real("delta", 0.09, ""), 0.09);
  EXPECT_EQ(params.canonical(), "typical(epsilon=0.25,delta=0.09)");
  Params again = Params::parse(params.canonical());
  again.real("epsilon", 0.3, "");
  again.real("delta", 0.09, "");
  EXPECT_EQ(again.canonical(), params.canonical());
}

TEST(Params, KeepsNestedSpecsAndPathsWhole) {
  Params params = Params::parse("merged(independent(path=a/b=c,x=1), ngram)");
  EXPECT_EQ(params.texts("drafters", ""), (std::vector<std::string>{"independent(path=a/b=c,x=1)", "ngram"}));
  Params quoted = Params::parse("independent(path=\"a,b)\")");
  EXPECT_EQ(quoted.required_text("path", ""), "a,b)");
}

TEST(Params, WhatNeedsQuotesKeepsThem) {
  for (const std::string value : {"a,b", "a)b", "a)(b", "(a", " a", "a ", "a=b", "f(x,y)", "a/b=c", "plain"}) {
    Params params = Params::parse("independent(path=\"" + value + "\",x=1)");
    EXPECT_EQ(params.required_text("path", ""), value);
    params.integer("x", 0, "");
    Params again = Params::parse(params.canonical());
    EXPECT_EQ(again.required_text("path", ""), value) << params.canonical();
    again.integer("x", 0, "");
    again.finish();
    EXPECT_EQ(again.canonical(), params.canonical());
    Params list = Params::parse("merged(\"" + value + "\", ngram)");
    const std::vector<std::string> items = {value, "ngram"};
    EXPECT_EQ(list.texts("drafters", ""), items);
    EXPECT_EQ(Params::parse(list.canonical()).texts("drafters", ""), items) << list.canonical();
  }
  Params nested = Params::parse("merged(independent(path=a/b=c,x=1), ngram)");
  nested.texts("drafters", "");
  EXPECT_EQ(nested.canonical(), "merged(independent(path=a/b=c,x=1),ngram)");
}

TEST(Params, ErrorsSayWhatIsAccepted) {
  Params params = Params::parse("chain(gama=4)");
  params.integer("gamma", 4, "");
  EXPECT_EQ(error_of([&] { params.finish(); }), "chain: unexpected parameter 'gama'; accepted parameters: gamma");
  Params word = Params::parse("chain(gamma=four)");
  EXPECT_EQ(error_of([&] { word.integer("gamma", 4, ""); }), "chain: gamma must be an integer, got 'four'");
  Params wide = Params::parse("chain(gamma=4294967300)");
  EXPECT_EQ(error_of([&] { wide.integer("gamma", 4, ""); }),
            "chain: gamma must be an integer from -2147483648 to 2147483647, got '4294967300'");
  Params missing = Params::parse("independent");
  EXPECT_EQ(error_of([&] { missing.required_text("path", "checkpoint folder"); }),
            "independent: needs path (checkpoint folder), as in independent(path=...)");
}

TEST(Params, ANamedListIsToldToComeWithoutAName) {
  Params params = Params::parse("expansion(widths=2)");
  params.integers("widths", {2, 2}, "children per level");
  EXPECT_EQ(error_of([&] { params.finish(); }), "expansion: widths are given without a name, as in expansion(2, ...)");
}

TEST(Params, RefusesBrokenSpecs) {
  for (const char* spec : {"", "(", "chain(", "chain(4))", "chain(4", "4chain", "chain(,)", "chain(a=1,a=2)",
                           "chain(a=1,2)", "chain(\"a)", "chain)x("}) {
    EXPECT_THROW(Params::parse(spec), Error) << spec;
  }
  Params real = Params::parse("typical(nan)");
  EXPECT_THROW(real.real("epsilon", 0.3, ""), Error);
}

}  // namespace
}  // namespace specmoe
