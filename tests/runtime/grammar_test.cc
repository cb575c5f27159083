// Grammars: what fits is compared with std::regex and with a JSON parser, masks with reading each
// token, documents of schemas (beside this) with Python's jsonschema in tests/server/clients.py.
#include <gmock/gmock.h>

#include <chrono>
#include <random>
#include <regex>

#include "base/error.h"
#include "base/json.h"
#include "runtime/grammar/guide.h"
#include "runtime/grammar/parse_ebnf.h"
#include "support/test_data.h"

namespace nibble::grammar {
namespace {

const Tokenizer& tokenizer() {
  static const std::unique_ptr<Tokenizer> loaded = load_tokenizer(test::tiny_novel());
  return *loaded;
}

std::shared_ptr<const TokenTrie> vocabulary() {
  static const auto trie = std::make_shared<const TokenTrie>(token_bytes(tokenizer()));
  return trie;
}

std::shared_ptr<Automaton> automaton(SpecKind kind, std::string_view text) {
  return std::make_shared<Automaton>(make_spec(kind, text).network, vocabulary());
}

bool fits(const std::shared_ptr<Automaton>& automaton, std::string_view text) {
  Cursor cursor(automaton);
  return cursor.advance(text) && cursor.accepts();
}

// A text of random tokens, each of which its mask allows; "" when it does not end in time.
std::string random_text(const std::shared_ptr<Automaton>& automaton, std::mt19937& random,
                        int most = 200) {
  Cursor cursor(automaton);
  std::string text;
  for (int i = 0; i < most; ++i) {
    if (cursor.accepts() && (!cursor.goes_on() || random() % 3 == 0)) return text;
    const auto mask = cursor.mask();
    std::vector<std::int32_t> allowed;
    for (std::int32_t id = 0; id < vocabulary()->vocab(); ++id) {
      if (allows(*mask, static_cast<std::size_t>(id))) allowed.push_back(id);
    }
    EXPECT_FALSE(allowed.empty()) << "a dead end behind: " << text;
    if (allowed.empty()) return text;
    const std::string_view next = vocabulary()->text(allowed[random() % allowed.size()]);
    EXPECT_TRUE(cursor.advance(next));
    text += next;
  }
  return "";
}

TEST(GrammarTest, TokensAreTheirBytes) {
  const std::string text = "It wasn't 17 “ünïcode” 日本 \n\t x";
  std::string joined;
  for (const std::int32_t id : tokenizer().encode(text, {.add_special = false})) {
    joined += vocabulary()->text(id);
  }
  EXPECT_EQ(joined, text);
  EXPECT_EQ(vocabulary()->text(*tokenizer().eos()), "");
  std::set<std::string_view> single;
  for (std::int32_t id = 0; id < vocabulary()->vocab(); ++id) {
    if (vocabulary()->text(id).size() == 1) single.insert(vocabulary()->text(id));
  }
  EXPECT_EQ(single.size(), 256u);  // so that anything can be said
}

bool is_ascii(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0; });
}

TEST(GrammarTest, RegularExpressionsMeanWhatStdRegexSays) {
  std::mt19937 random(1);
  for (const char* const pattern : {"a*b+c?", "(foo|bar|fo)+(, ?(x{2,4}|y{3}))*", "[^a-y\\d]{1,3}z",
                                    "\\d{3}-[0-9A-F]{2,}", "(a|ab)(c|bcd)(d*)", "\\w+\\s\\S*",
                                    "x{0,5}y{2}", "(?:a(?:b(?:c)?)?)?", "[\\]\\-^]+|\\{\\}"}) {
    const auto mine = automaton(SpecKind::kRegex, pattern);
    const std::regex theirs(pattern);
    for (int i = 0; i < 12; ++i) {
      std::string text = random_text(mine, random, 40);
      if (!is_ascii(text)) continue;  // std::regex reads bytes
      EXPECT_TRUE(text.empty() || std::regex_match(text, theirs)) << pattern << ": " << text;
      for (int k = 0; k < 12; ++k) {  // and texts nearby, that may or may not
        std::string other = text.substr(0, random() % (text.size() + 1));
        if (random() % 2 == 0) other += "abcdxyz019-, "[random() % 13];
        other += text.substr(std::min(text.size(), other.size() + random() % 2));
        EXPECT_EQ(fits(mine, other), std::regex_match(other, theirs)) << pattern << ": " << other;
      }
    }
  }
}

TEST(GrammarTest, CharactersOfAnyLengthAreWhole) {
  const auto set =
      automaton(SpecKind::kRegex, "[^x-\\u{10fff0}]|[à-ö]|[߿-ࠁ]|[\\uffff-\\u{10001}]");
  for (const char* const text : {"a", "ô", "߿", "ࠀ", "\uFFFF", "\U00010000", "\U0010FFFF"}) {
    EXPECT_TRUE(fits(set, text)) << text;
  }
  for (const char* const text : {"x", "ÿ", "ࠂ", "\uFFFE", "\U00010002", "\xc3", "\xed\xa0\x80"}) {
    EXPECT_FALSE(fits(set, text)) << text;
  }
}

constexpr const char* kJsonGrammar = R"(
root   ::= value            # JSON, without escapes
value  ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" ( string ":" value ("," string ":" value)* )? "}"
array  ::= "[" ( value ("," value)* )? "]"
string ::= "\"" [^"\\\x00-\x1f]* "\""
number ::= "-"? ("0" | [1-9] [0-9]{0,8}) ("." [0-9]+)?
)";

TEST(GrammarTest, EbnfDescribesJson) {
  const auto json = automaton(SpecKind::kEbnf, kJsonGrammar);
  for (const char* const text :
       {"[]", "{\"a\":[1,2.5,{\"b\":null}]}", "-0.25", "\"日本\"", "[[[[[[[[1]]]]]]]]"}) {
    EXPECT_TRUE(fits(json, text)) << text;
  }
  for (const char* const text : {"", "[1,]", "{\"a\" :1}", "01", "[1", "1]", "\"\n\"", "tru"}) {
    EXPECT_FALSE(fits(json, text)) << text;
  }
  std::mt19937 random(3);
  int ended = 0;
  for (int i = 0; i < 40; ++i) {
    const std::string text = random_text(json, random, 60);
    if (text.empty()) continue;
    ++ended;
    EXPECT_TRUE(Json::accept(text)) << text;
  }
  EXPECT_GT(ended, 10);
}

TEST(GrammarTest, MasksAllowWhatCanBeReadAndNothingElse) {
  const auto json = automaton(SpecKind::kEbnf, kJsonGrammar);
  for (const std::string before : {"", "{\"a", "[1", "{\"a\":tr", "\"\xe6\x97", "[[{\"k\":\"x"}) {
    Cursor cursor(json);
    ASSERT_TRUE(cursor.advance(before));
    const auto mask = cursor.mask();
    for (std::int32_t id = 0; id < vocabulary()->vocab(); ++id) {
      Cursor other(json);
      other.advance(before);
      const std::string_view text = vocabulary()->text(id);
      ASSERT_EQ(allows(*mask, static_cast<std::size_t>(id)), !text.empty() && other.advance(text))
          << before << "|" << text;
    }
    EXPECT_EQ(cursor.known_mask(), mask);
  }
}

TEST(GrammarTest, ForgottenStatesAreMadeAgain) {
  const auto json = automaton(SpecKind::kEbnf, kJsonGrammar);
  Cursor other(json);
  ASSERT_TRUE(other.advance("{\"a\":[1,"));
  Cursor deep(json);
  std::string text;
  for (int i = 0; i < 12000; ++i) text += i % 2 == 0 ? "[" : "{\"k\":";
  for (std::size_t at = 0; at < text.size(); at += 100) {
    ASSERT_TRUE(deep.advance(std::string_view(text).substr(at, 100)));
  }
  ASSERT_TRUE(deep.advance("1"));
  for (int i = 11999; i >= 0; --i) ASSERT_TRUE(deep.advance(i % 2 == 0 ? "]" : "}"));
  EXPECT_TRUE(deep.accepts());
  EXPECT_FALSE(deep.goes_on());
  EXPECT_TRUE(other.advance("2]}"));
  EXPECT_TRUE(other.accepts());
}

struct SchemaCase {
  const char* schema;
  std::vector<const char*> valid;
  std::vector<const char*> invalid;
};

TEST(GrammarTest, SchemasLetValidDocumentsThrough) {
  const SchemaCase cases[] = {
      {R"({"type": "object", "properties": {"b": {"type": "integer"}, "a": {"enum": ["x", 1]}},
           "required": ["a"]})",
       {R"({"b":1,"a":"x"})", R"({"a": 1})", "{\n  \"b\": -5, \"a\": 1\n}"},
       {R"({"a":"x","b":1})", R"({"b":1})", R"({"b":1.5,"a":1})", R"({"a":1,"a":1})", "{}"}},
      {R"({"type": "object", "properties": {"ab": {"type": "null"}},
           "additionalProperties": {"type": "boolean"}})",
       {"{}", R"({"ab":null,"a":true,"abc":false})", R"({"b":true})"},
       {R"({"ab":true})", R"({"a":true,"ab":true})", R"({"b":1})"}},
      {R"({"type": "array", "items": {"type": "string", "maxLength": 2}, "minItems": 1,
           "maxItems": 3})",
       {R"(["ab"])", R"(["a", "\n\u00e9", ""])"},
       {"[]", R"(["abc"])", R"(["a","b","c","d"])", R"(["\ud800"])"}},
      {R"({"prefixItems": [{"const": 1}, {"type": "boolean"}], "items": false})",
       {"[1,true]"},
       {"[1]", "[true,1]", "[1,true,2]"}},
      {R"({"type": "integer", "minimum": -12, "exclusiveMaximum": 305})",
       {"-12", "0", "7", "99", "304", "-3"},
       {"-13", "305", "1000", "007", "1.0", "-"}},
      {R"({"type": "number", "minimum": 0, "maximum": 1})",
       {"0", "1", "0.25", "0.999999"},
       {"1.1", "-0.1", "2"}},
      {R"({"type": "number", "exclusiveMinimum": 0.25, "maximum": 0.5})",
       {"0.3", "0.5", "0.4"},
       {"0.2", "0.25", "0.51", "0"}},
      {R"({"$defs": {"tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}},
           "additionalProperties": false}}, "$ref": "#/$defs/tree"})",
       {"{}", R"({"left":{"left":{}}})"},
       {R"({"left":1})", R"({"right":{}})"}},
      {R"({"type": "string", "pattern": "^a\"\\d$|b"})",
       {R"("a\"7")", R"("xxbyy")"},
       {R"("a7")", R"("xx")", R"("xa\"7")"}},
      {R"({"oneOf": [{"type": "object", "properties": {"k": {"const": "a"}}, "required": ["k"]},
           {"type": "object", "properties": {"k": {"const": "b"}, "n": {}}, "required": ["k", "n"]},
           {"type": ["null", "boolean"]}]})",
       {R"({"k":"a"})", R"({"k":"b","n":[1,{}]})", "null", "true"},
       {R"({"k":"b"})", R"({"k":"c"})", "1"}},
      {R"({"allOf": [{"type": "object", "properties": {"a": {"type": "number"}}},
           {"properties": {"a": {"minimum": 3}, "b": {"type": "null"}}, "required": ["b"]}]})",
       {R"({"a":3,"b":null})", R"({"b":null})"},
       {R"({"a":2,"b":null})", R"({"a":4})"}},
      {R"({"type": "string", "format": "date"})",
       {R"("2024-02-28")"},
       {R"("2024-13-01")", R"("x")"}},
      {"true", {"null", R"([{"a":1e9}])"}, {"", "nul"}},
  };
  for (const SchemaCase& one : cases) {
    const auto schema = automaton(SpecKind::kJsonSchema, one.schema);
    for (const char* const text : one.valid) EXPECT_TRUE(fits(schema, text)) << one.schema << text;
    for (const char* const text : one.invalid) {
      EXPECT_FALSE(fits(schema, text)) << one.schema << text;
    }
  }
}

std::string nested(const std::string& open, const std::string& inside, const std::string& close,
                   int times) {
  std::string text = inside;
  for (int i = 0; i < times; ++i) text = open + text + close;
  return text;
}

TEST(GrammarTest, RefusesWhatExplodesOrNeverEnds) {
  // Two references to each schema from the one above, which add to it: 2^40 parts.
  std::string laughs = R"({"$defs": {"l0": {"type": "object"})";
  for (int i = 1; i < 40; ++i) {
    const std::string below =
        R"({"$ref": "#/$defs/l)" + std::to_string(i - 1) + R"(", "maxProperties": 3})";
    laughs += ", \"l" + std::to_string(i) + R"(": {"properties": {"a": )" + below + R"(, "b": )" +
              below + "}}";
  }
  laughs += R"(}, "$ref": "#/$defs/l39"})";
  const std::pair<SpecKind, std::string> cases[] = {
      {SpecKind::kJsonSchema, laughs},
      {SpecKind::kJsonSchema, R"({"$ref": "#"})"},
      {SpecKind::kJsonSchema, R"({"$ref": "http://example.org/"})"},
      {SpecKind::kJsonSchema,
       R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})"},
      {SpecKind::kJsonSchema, R"({"not": {}})"},
      {SpecKind::kJsonSchema, R"({"uniqueItems": true})"},
      {SpecKind::kJsonSchema, R"({"oneOf": [{"type": "number"}, {"type": "integer"}]})"},
      {SpecKind::kJsonSchema, R"x({"type": "string", "pattern": "(?=x)"})x"},
      {SpecKind::kJsonSchema, R"({"minimum": 1e300})"},
      {SpecKind::kJsonSchema, R"({"minItems": 1e9})"},
      {SpecKind::kJsonSchema, "false"},
      {SpecKind::kJsonSchema, "{"},
      {SpecKind::kRegex, nested("(", "a", "){1000}", 1) + nested("(?:a|b", "", "){65535}{2}", 1)},
      {SpecKind::kRegex, "a{65535}b{65535}c{65535}"},
      {SpecKind::kRegex, "((([a-z]{60000}){60000}x{60000}){60000}y{60000})"},
      {SpecKind::kRegex, nested("(", "a", ")", 5000)},
      {SpecKind::kRegex, "a("},
      {SpecKind::kRegex, "\\bx"},
      {SpecKind::kRegex, "[b-a]"},
      {SpecKind::kRegex, "a{99999}"},
      {SpecKind::kEbnf, "root ::= root \"x\" | \"y\""},
      {SpecKind::kEbnf, "root ::= (\"\" | a) root \"x\" | \"y\"\na ::= \"z\"*"},
      {SpecKind::kEbnf, "root ::= \"x\" root"},
      {SpecKind::kEbnf, "root ::= missing"},
      {SpecKind::kEbnf, "other ::= \"x\""},
      {SpecKind::kEbnf, "root ::= \"x"},
      {SpecKind::kEbnf, "root ::= %json{\"type\": 3}"},
  };
  for (const auto& [kind, text] : cases) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_THROW((void)make_spec(kind, text), Error) << text.substr(0, 200);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(3)) << text;
  }
  // Ambiguous beyond measure: fine to make, refused while it is read.
  Cursor cursor(
      automaton(SpecKind::kEbnf, "root ::= a a a a a a\na ::= \"x\" a a | \"x\" | \"xx\" a"));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THROW(
      {
        for (int i = 0; i < 1000; ++i) cursor.advance("x");
      },
      Error);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST(GrammarTest, AGuideLeavesTheModelNoOtherChoice) {
  GuideMaker maker(tokenizer());
  const Spec spec = make_spec(SpecKind::kRegex, "(yes|no) ?");
  const auto vocab = static_cast<std::size_t>(tokenizer().vocab_size());
  const std::int32_t stop[] = {*tokenizer().eos()};
  for (const bool may_stop : {true, false}) {
    const auto guide = maker.make(spec);
    std::string text;
    while (!guide->complete()) {
      std::vector<float> logits(vocab, 0.f);
      logits[static_cast<std::size_t>(stop[0])] = 5;
      guide->restrict(logits, stop, may_stop);
      const auto best = static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) -
                                                  logits.begin());
      if (best == stop[0]) break;
      text += vocabulary()->text(best);
      guide->accept(best);
    }
    EXPECT_THAT(text, may_stop ? testing::AnyOf("yes", "no") : testing::AnyOf("yes ", "no "));
  }
}

}  // namespace
}  // namespace nibble::grammar
