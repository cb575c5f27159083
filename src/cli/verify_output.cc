#include "cli/verify_output.h"

#include <fmt/format.h>

namespace nibble::cli {

Json verify_json(const VerifyResult& verify) {
  return {{"ppl", verify.perplexity},
          {"ppl_reference", verify.perplexity_reference},
          {"mean_kl", verify.mean_kl},
          {"p99_kl", verify.p99_kl},
          {"top1_agreement", verify.top1_agreement},
          {"nan", verify.nan},
          {"tokens", verify.tokens},
          {"context", verify.context}};
}

std::string verify_text(const VerifyResult& v) {
  return fmt::format(
      "verified on {} tokens it never saw: perplexity {:.4f}, source {:.4f} ({:+.2f} %)\n"
      "mean KL {:.5f} nats (99 % below {:.4f}), top-1 agreement {:.2f} %, {} NaN\n",
      v.tokens, v.perplexity, v.perplexity_reference,
      100 * (v.perplexity / v.perplexity_reference - 1), v.mean_kl, v.p99_kl,
      100 * v.top1_agreement, v.nan);
}

}  // namespace nibble::cli
