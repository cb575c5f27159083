#include "runtime/session.h"

#include <algorithm>
#include <fstream>

#include "base/error.h"
#include "support/exact_backend.h"
#include "support/test_data.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

class SessionTest : public testing::Test {
 protected:
  // A copy of the bundled model without some of its files.
  fs::path copy_without(const std::vector<std::string>& left_out) {
    for (const auto& entry : fs::directory_iterator(test::tiny_novel())) {
      const std::string name = entry.path().filename().string();
      if (std::find(left_out.begin(), left_out.end(), name) == left_out.end()) {
        fs::create_symlink(entry.path(), dir_ / name);
      }
    }
    return dir_.path();
  }
  void write(const std::string& name, const std::string& content) {
    std::ofstream(dir_ / name) << content;
  }

  test::TempDir dir_;
  std::unique_ptr<Backend> backend_ = test::exact_backend();
};

TEST_F(SessionTest, OpensModelTokenizerAndGenerationConfig) {
  const Session session = open_session(test::tiny_novel(), *backend_);
  EXPECT_EQ(session.model->spec().vocab, 4096);
  EXPECT_EQ(session.require_tokenizer().vocab_size(), 4096);
  EXPECT_EQ(session.generation_config["eos_token_id"], 2);
  EXPECT_EQ(session.kv_type, KvType::kBF16);  // as its embedding is stored
  EXPECT_EQ(open_session(test::tiny_novel(), *backend_, KvType::kInt4).kv_type, KvType::kInt4);
}

TEST_F(SessionTest, ATokenizerIsNeededForTextOnly) {
  const Session session = open_session(
      copy_without({"tokenizer.json", "tokenizer_config.json", "generation_config.json"}),
      *backend_);
  EXPECT_EQ(session.tokenizer, nullptr);
  EXPECT_TRUE(session.generation_config.empty());
  EXPECT_ERROR(session.require_tokenizer(), ErrorKind::kUsage, dir_.path().string());
}

TEST_F(SessionTest, DamagedCompanionsAreErrors) {
  copy_without({"generation_config.json"});
  write("generation_config.json", "[1]");
  EXPECT_ERROR(open_session(dir_.path(), *backend_), ErrorKind::kCorrupt, "not a JSON object");
  write("generation_config.json", "{");
  EXPECT_ERROR(open_session(dir_.path(), *backend_), ErrorKind::kCorrupt, "generation_config");
}

TEST_F(SessionTest, ADamagedTokenizerIsNotMistakenForNone) {
  copy_without({"tokenizer.json"});
  write("tokenizer.json", "{\"model\"");
  EXPECT_ERROR(open_session(dir_.path(), *backend_), ErrorKind::kCorrupt, "tokenizer.json");
}

TEST_F(SessionTest, AMissingCheckpointIsCorrupt) {
  EXPECT_ERROR(open_session(dir_ / "none", *backend_), ErrorKind::kCorrupt, "none");
}

}  // namespace
}  // namespace nibble
