// The walk over an ordered list of implementations: the first that supports the arguments runs.
#pragma once

#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/backend.h"

namespace nibble {

// One entry of NIBBLE_FORCE.
struct ForcedImpl {
  std::string op;
  std::string impl;
};

// "linear:reference,attention:avx2" -> entries. kUsage when an entry has not this form or an op is
// named twice.
std::vector<ForcedImpl> parse_force(std::string_view text);

// One op of a backend: its implementations and, perhaps, the one that was forced.
template <class Args>
class OpDispatcher {
 public:
  OpDispatcher(const char* op, ImplList<Args> impls) : op_(op), impls_(impls) {}

  // kUsage when no implementation has this name.
  void force(const std::string& name) {
    for (const Impl<Args>& impl : impls_) {
      if (name == impl.name) {
        forced_ = &impl;
        return;
      }
    }
    std::string names;
    for (const Impl<Args>& impl : impls_)
      names += std::string(names.empty() ? "" : ", ") + impl.name;
    fail(ErrorKind::kUsage, "NIBBLE_FORCE: {} has no implementation '{}'; there are {}", op_, name,
         names);
  }

  // Runs the first implementation that supports `args` (the forced one if any). With a sink, every
  // new outcome of the walk is logged once.
  void run(const Args& args, ExecContext& context, const LogSink& verbose) {
    choose(args, context.caps, verbose).run(args, context);
  }

  // As run() for each of `calls`; neighbours that the same implementation runs are handed to it
  // together.
  void run_together(std::span<const Args> calls, ExecContext& context, const LogSink& verbose) {
    while (!calls.empty()) {
      const Impl<Args>& impl = choose(calls.front(), context.caps, verbose);
      std::size_t count = 1;
      while (impl.run_together != nullptr && count < calls.size() &&
             &choose(calls[count], context.caps, verbose) == &impl) {
        ++count;
      }
      if (count > 1) {
        impl.run_together(calls.first(count), context);
      } else {
        impl.run(calls.front(), context);
      }
      calls = calls.subspan(count);
    }
  }

  // What would run. kUnsupported as run().
  const Impl<Args>& choose(const Args& args, const DeviceCaps& caps, const LogSink& verbose) {
    if (!verbose) return find(args, caps, nullptr);
    std::string refusals;
    const Impl<Args>& impl = find(args, caps, &refusals);
    log_once(verbose, impl.name + refusals);
    return impl;
  }

  void append_rows(std::vector<ImplRow>& rows, const DeviceCaps& caps) const {
    for (const Impl<Args>& impl : impls_) {
      rows.push_back({op_, impl.name, impl.usable(caps), impl.arithmetic});
    }
  }

  // Of the implementation that would run. kUnsupported as run().
  Arithmetic arithmetic_of(const Args& args, const DeviceCaps& caps) const {
    return find(args, caps, nullptr).arithmetic;
  }

 private:
  // The first implementation that supports `args`; the reasons of those before it are appended to
  // `refusals`, if it is wanted (most calls are made thousands of times).
  const Impl<Args>& find(const Args& args, const DeviceCaps& caps, std::string* refusals) const {
    for (const Impl<Args>& impl : impls_) {
      if (forced_ != nullptr && &impl != forced_) continue;
      if (refusals == nullptr && !impl.usable(caps)) continue;
      const Support support = impl.supports(args, caps);
      if (support.ok) return impl;
      if (refusals == nullptr) continue;
      *refusals +=
          std::string(refusals->empty() ? " (" : "; ") + "not " + impl.name + ": " + support.why;
    }
    std::string reasons;
    if (refusals == nullptr) find(args, caps, &reasons);  // fails, with every reason
    fail(ErrorKind::kUnsupported, "{}: no implementation can run this{}", op_,
         refusals->empty() ? "" : *refusals + ")");
  }

  void log_once(const LogSink& sink, const std::string& outcome) {
    if (!seen_.insert(outcome).second) return;
    const bool refused = outcome.find('(') != std::string::npos;
    log(sink, LogLevel::kInfo,
        std::string("dispatch: ") + op_ + " -> " + outcome + (refused ? ")" : ""));
  }

  const char* op_;
  ImplList<Args> impls_;
  const Impl<Args>* forced_ = nullptr;
  std::set<std::string> seen_;
};

// The ops of a backend, each with its list of implementations.
struct OpTable {
#define NIBBLE_OP(name, Args) OpDispatcher<Args> name;
#include "ops/ops.def"
#undef NIBBLE_OP

  // Takes exactly these implementations. kUsage when one names no op or no implementation.
  void force(std::string_view text) {
    for (const ForcedImpl& forced : parse_force(text)) force(forced);
  }

  std::vector<ImplRow> impl_rows(const DeviceCaps& caps) const {
    std::vector<ImplRow> rows;
#define NIBBLE_OP(name, Args) name.append_rows(rows, caps);
#include "ops/ops.def"
#undef NIBBLE_OP
    return rows;
  }

  void force(const ForcedImpl& forced) {
#define NIBBLE_OP(name, Args) \
  if (forced.op == #name) return name.force(forced.impl);
#include "ops/ops.def"
#undef NIBBLE_OP
    fail(ErrorKind::kUsage, "NIBBLE_FORCE: there is no op '{}'; see `nibble list impls`",
         forced.op);
  }
};

}  // namespace nibble
