// Reading ahead while something else is computed. Included inside an anonymous namespace of an ISA
// unit.

// Brings some lines of what is read next into the second-level cache at every step of `steps`: the
// products leave the memory idle, and many short streams are not followed by the processor itself.
class AheadReader {
 public:
  AheadReader(const ReadAhead& ahead, std::int64_t steps)
      : ahead_(ahead),
        row_lines_((ahead.bytes + kLine - 1) / kLine),
        lines_((ahead.rows * row_lines_ + steps - 1) / steps) {}

  void step() {
    for (std::int64_t i = 0; i < lines_ && row_ < ahead_.rows; ++i) {
      __builtin_prefetch(ahead_.data + row_ * ahead_.stride + line_ * kLine, 0, 2);
      if (++line_ == row_lines_) {
        line_ = 0;
        ++row_;
      }
    }
  }

 private:
  static constexpr std::int64_t kLine = 64;
  ReadAhead ahead_;
  std::int64_t row_lines_;
  std::int64_t lines_;  // a step
  std::int64_t row_ = 0;
  std::int64_t line_ = 0;
};
