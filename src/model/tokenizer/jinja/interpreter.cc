#include "model/tokenizer/jinja/interpreter.h"

#include <ctime>

#include "base/error.h"
#include "model/tokenizer/jinja/builtins.h"
#include "model/tokenizer/jinja/operators.h"

namespace nibble::jinja {
namespace {

using EKind = Expression::Kind;
using SKind = Statement::Kind;

constexpr int kMaxSteps = 2'000'000;
constexpr int kMaxCalls = 60;
constexpr std::size_t kMaxOutput = std::size_t{64} << 20;
constexpr std::int64_t kMaxRange = 100'000;

enum class Flow { kNormal, kBreak, kContinue };

Value current_time(const Arguments& arguments) {
  const Value format = arguments.get(0, "format");
  if (format.text() == nullptr) fail(ErrorKind::kCorrupt, "chat template: strftime_now()");
  const std::time_t now = std::time(nullptr);
  std::tm local = {};
  localtime_r(&now, &local);
  char buffer[256];
  const std::size_t size = std::strftime(buffer, sizeof buffer, format.text()->c_str(), &local);
  return std::string(buffer, size);
}

Value range(const Arguments& arguments) {
  std::int64_t bounds[3] = {0, 0, 1};
  const std::size_t count = arguments.positional.size();
  if (count < 1 || count > 3) fail(ErrorKind::kCorrupt, "chat template: range() of {}", count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto* value = arguments.positional[i].as<std::int64_t>();
    if (value == nullptr) fail(ErrorKind::kCorrupt, "chat template: range() of no integer");
    bounds[count == 1 ? 1 : i] = *value;
  }
  if (bounds[2] == 0) fail(ErrorKind::kCorrupt, "chat template: range() with step 0");
  List out;
  for (std::int64_t i = bounds[0]; bounds[2] > 0 ? i < bounds[1] : i > bounds[1];) {
    if (static_cast<std::int64_t>(out.size()) >= kMaxRange) {
      fail(ErrorKind::kCorrupt, "chat template: range() longer than {}", kMaxRange);
    }
    out.emplace_back(i);
    if (__builtin_add_overflow(i, bounds[2], &i)) break;
  }
  return Value::list(std::move(out));
}

class Interpreter {
 public:
  explicit Interpreter(const Value& context) {
    scopes_.emplace_back();
    for (const char* name : {"range", "namespace", "dict", "raise_exception", "strftime_now"}) {
      scopes_[0].set(name, Function{name, nullptr});
    }
    for (const auto& [key, value] : context.dict()->entries) scopes_[0].set(key, value);
    scopes_.emplace_back();
  }
  ~Interpreter() {
    for (const auto& made : namespaces_) made->entries.clear();  // they may hold one another
  }
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  std::string run(const Block& block) {
    try {
      execute(block);
    } catch (const Error& error) {
      const std::string message = error.what();
      if (message.find(", line ") != std::string::npos) throw;
      constexpr std::string_view kWhere = "chat template";
      const std::string_view rest =
          std::string_view(message).substr(message.starts_with(kWhere) ? kWhere.size() : 0);
      throw Error(error.kind(), fmt::format("{}, line {}{}", kWhere, line_, rest));
    }
    return std::move(output_);
  }

 private:
  void step(int line) {
    line_ = line;
    if (++steps_ > kMaxSteps) fail(ErrorKind::kCorrupt, "chat template: runs away");
  }

  // Work in proportion to what was made, so that doubling a text over and over ends soon.
  void charge(const Value& made) {
    if (made.text() != nullptr) steps_ += static_cast<int>(made.text()->size() / 256);
    if (made.list() != nullptr) steps_ += static_cast<int>(made.list()->size() / 8);
  }

  void emit(std::string_view text) {
    output_ += text;
    if (output_.size() > kMaxOutput) fail(ErrorKind::kCorrupt, "chat template: endless output");
  }

  Flow execute(const Block& block) {
    for (const auto& statement : block) {
      const Flow flow = execute(*statement);
      if (flow != Flow::kNormal) return flow;
    }
    return Flow::kNormal;
  }

  Flow execute(const Statement& s) {
    step(s.line);
    switch (s.kind) {
      case SKind::kText:
        emit(s.text);
        return Flow::kNormal;
      case SKind::kOutput:
        emit(to_text(evaluate(*s.expressions[0])));
        return Flow::kNormal;
      case SKind::kIf:
        return execute_if(s);
      case SKind::kFor:
        return execute_for(s);
      case SKind::kSet:
        execute_set(s);
        return Flow::kNormal;
      case SKind::kSetBlock:
        scopes_.back().set(s.names[0], captured(s.blocks[0]));
        return Flow::kNormal;
      case SKind::kMacro:
        scopes_.back().set(s.text, Function{"", &s});
        return Flow::kNormal;
      case SKind::kBreak:
        return Flow::kBreak;
      case SKind::kContinue:
        return Flow::kContinue;
    }
    fail(ErrorKind::kInternal, "chat template: no such statement");
  }

  Flow execute_if(const Statement& s) {
    for (std::size_t i = 0; i < s.expressions.size(); ++i) {
      if (truthy(evaluate(*s.expressions[i]))) return execute(s.blocks[i]);
    }
    return s.blocks.size() > s.expressions.size() ? execute(s.blocks.back()) : Flow::kNormal;
  }

  Flow execute_for(const Statement& s) {
    List items = items_of(evaluate(*s.expressions[0]));
    scopes_.emplace_back();
    if (s.expressions[1] != nullptr) {
      std::erase_if(items, [&](const Value& item) {
        step(s.line);
        assign(s.names, item);
        return !truthy(evaluate(*s.expressions[1]));
      });
    }
    for (std::size_t i = 0; i < items.size(); ++i) {
      step(s.line);
      scopes_.back().entries.clear();
      assign(s.names, items[i]);
      scopes_.back().set("loop", loop_variable(items, i));
      if (execute(s.blocks[0]) == Flow::kBreak) break;
    }
    scopes_.pop_back();
    if (items.empty() && s.blocks.size() > 1) return execute(s.blocks[1]);
    return Flow::kNormal;
  }

  static Value loop_variable(const List& items, std::size_t i) {
    const auto index = static_cast<std::int64_t>(i);
    const auto size = static_cast<std::int64_t>(items.size());
    auto loop = std::make_shared<Dict>();
    loop->entries = {
        {"index", index + 1},
        {"index0", index},
        {"revindex", size - index},
        {"revindex0", size - index - 1},
        {"first", index == 0},
        {"last", index + 1 == size},
        {"length", size},
        {"previtem", index > 0 ? items[i - 1] : Value::undefined("previtem")},
        {"nextitem", index + 1 < size ? items[i + 1] : Value::undefined("nextitem")},
    };
    return loop;
  }

  // One name takes the value, several take it apart.
  void assign(const std::vector<std::string>& names, const Value& value) {
    if (names.size() == 1) {
      scopes_.back().set(names[0], value);
      return;
    }
    const List parts = items_of(value);
    if (parts.size() != names.size()) {
      fail(ErrorKind::kCorrupt, "chat template: {} values for {} names", parts.size(),
           names.size());
    }
    for (std::size_t i = 0; i < names.size(); ++i) scopes_.back().set(names[i], parts[i]);
  }

  void execute_set(const Statement& s) {
    const Value value = evaluate(*s.expressions[0]);
    if (s.text.empty()) {
      assign(s.names, value);
      return;
    }
    Dict* target = lookup(s.names[0]).dict();
    if (target == nullptr || !target->is_namespace) {
      fail(ErrorKind::kCorrupt, "chat template: '{}' is no namespace", s.names[0]);
    }
    target->set(s.text, value);
  }

  // What the block prints, as a text.
  std::string captured(const Block& block) {
    std::string outer = std::move(output_);
    output_.clear();
    execute(block);
    std::swap(outer, output_);
    return outer;
  }

  Value lookup(const std::string& name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      if (const Value* found = scope->find(name)) return *found;
    }
    return Value::undefined(name);
  }

  Value evaluate(const Expression& e) {
    step(e.line);
    switch (e.kind) {
      case EKind::kLiteral:
        return from_json(e.literal);
      case EKind::kName:
        return lookup(e.text);
      case EKind::kList:
        return evaluate_list(e);
      case EKind::kDict:
        return evaluate_dict(e);
      case EKind::kAttribute:
        return attribute(evaluate(*e.operands[0]), e.text);
      case EKind::kItem:
        return evaluate_item(e);
      case EKind::kSlice:
        return slice(evaluate(*e.operands[0]), optional(e.operands[1]), optional(e.operands[2]),
                     optional(e.operands[3]));
      case EKind::kCall:
        return evaluate_call(e);
      case EKind::kFilter:
        return apply_filter(e.text, evaluate(*e.operands[0]), evaluate_arguments(e));
      case EKind::kTest:
        return apply_test(e.text, evaluate(*e.operands[0]), evaluate_arguments(e));
      case EKind::kUnary:
        return evaluate_unary(e);
      case EKind::kBinary:
        return evaluate_binary(e);
      case EKind::kCompare:
        return evaluate_comparison(e);
      case EKind::kConditional:
        if (truthy(evaluate(*e.operands[1]))) return evaluate(*e.operands[0]);
        return e.operands[2] == nullptr ? Value() : evaluate(*e.operands[2]);
    }
    fail(ErrorKind::kInternal, "chat template: no such expression");
  }

  Value optional(const ExpressionPtr& e) { return e == nullptr ? Value(nullptr) : evaluate(*e); }

  Value evaluate_item(const Expression& e) {
    const Value value = evaluate(*e.operands[0]);
    return item(value, evaluate(*e.operands[1]));
  }

  Value evaluate_list(const Expression& e) {
    List items;
    for (const auto& operand : e.operands) items.push_back(evaluate(*operand));
    return Value::list(std::move(items));
  }

  Value evaluate_dict(const Expression& e) {
    auto dict = std::make_shared<Dict>();
    for (std::size_t i = 0; i < e.operands.size(); i += 2) {
      const Value key = evaluate(*e.operands[i]);
      if (key.text() == nullptr) {
        fail(ErrorKind::kUnsupported, "chat template: {} as a key", type_name(key));
      }
      dict->set(*key.text(), evaluate(*e.operands[i + 1]));
    }
    return dict;
  }

  Value evaluate_unary(const Expression& e) {
    const Value value = evaluate(*e.operands[0]);
    if (e.text == "not") return !truthy(value);
    return apply_operator(e.text, std::int64_t{0}, value);
  }

  Value evaluate_binary(const Expression& e) {
    Value left = evaluate(*e.operands[0]);
    if (e.text == "and") return truthy(left) ? evaluate(*e.operands[1]) : left;
    if (e.text == "or") return truthy(left) ? left : evaluate(*e.operands[1]);
    const Value made = apply_operator(e.text, left, evaluate(*e.operands[1]));
    charge(made);
    return made;
  }

  Value evaluate_comparison(const Expression& e) {
    Value left = evaluate(*e.operands[0]);
    Value result = true;
    for (std::size_t i = 0; i < e.literal.size() && truthy(result); ++i) {
      Value right = evaluate(*e.operands[i + 1]);
      result = apply_operator(e.literal[i].get_ref<const std::string&>(), left, right);
      left = std::move(right);
    }
    return result;
  }

  Arguments evaluate_arguments(const Expression& e) {
    Arguments made;
    for (const Argument& argument : e.arguments) {
      if (argument.name.empty()) {
        made.positional.push_back(evaluate(*argument.value));
      } else {
        made.named.emplace_back(argument.name, evaluate(*argument.value));
      }
    }
    return made;
  }

  Value evaluate_call(const Expression& e) {
    const Expression& callee = *e.operands[0];
    if (callee.kind == EKind::kAttribute) {
      const Value object = evaluate(*callee.operands[0]);
      return call_method(object, callee.text, evaluate_arguments(e));
    }
    const Value value = evaluate(callee);
    const Function* function = value.as<Function>();
    if (function == nullptr) {
      fail(ErrorKind::kCorrupt, "chat template: {} '{}' is called", type_name(value), callee.text);
    }
    const Arguments arguments = evaluate_arguments(e);
    return function->macro != nullptr ? call_macro(*function->macro, arguments)
                                      : call_builtin(function->builtin, arguments);
  }

  Value call_macro(const Statement& macro, const Arguments& arguments) {
    if (++calls_ > kMaxCalls) fail(ErrorKind::kCorrupt, "chat template: endless recursion");
    Dict locals;
    for (std::size_t i = 0; i < macro.parameters.size(); ++i) {
      const Parameter& parameter = macro.parameters[i];
      Value value = arguments.get(i, parameter.name);
      if (value.is_undefined() && parameter.fallback != nullptr) {
        value = evaluate(*parameter.fallback);
      }
      locals.set(parameter.name, std::move(value));
    }
    // A macro sees the template's own variables, not those of its caller.
    std::vector<Dict> outer(scopes_.begin() + 2, scopes_.end());
    scopes_.resize(2);
    scopes_.push_back(std::move(locals));
    std::string text = captured(macro.blocks[0]);
    scopes_.resize(2);
    scopes_.insert(scopes_.end(), outer.begin(), outer.end());
    --calls_;
    return text;
  }

  Value call_builtin(const std::string& name, const Arguments& arguments) {
    if (name == "range") {
      Value made = range(arguments);
      charge(made);
      return made;
    }
    if (name == "strftime_now") return current_time(arguments);
    if (name == "raise_exception") {
      fail(ErrorKind::kUsage, "chat template: {}", to_text(arguments.get(0, "message")));
    }
    auto made = std::make_shared<Dict>();
    for (const Value& base : arguments.positional) {
      if (base.dict() != nullptr) made->entries = base.dict()->entries;
    }
    for (const auto& [key, value] : arguments.named) made->set(key, value);
    if (name == "namespace") {
      made->is_namespace = true;
      namespaces_.push_back(made);
    }
    return made;
  }

  std::vector<Dict> scopes_;  // built in and context, the template's, then one a loop
  std::vector<std::shared_ptr<Dict>> namespaces_;
  std::string output_;
  int steps_ = 0;
  int calls_ = 0;
  int line_ = 0;
};

}  // namespace

std::string render(const Block& block, const Value& context) {
  return Interpreter(context).run(block);
}

}  // namespace nibble::jinja
