// Pulling from a server that speaks the hub's protocol, and does all that goes wrong.
#include "hub/pull.h"

#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "hub/fake_hub.h"
#include "hub/http.h"
#include "support/test_data.h"

namespace nibble::hub {
namespace {

using test::FakeHub;
using test::HubReply;
using test::HubRequest;
using test::TempDir;

constexpr const char* kCommit = "0123456789abcdef0123456789abcdef01234567";
constexpr const char* kConfig = "{\"model_type\": \"llama\"}\n";
// git hash-object, sha256sum
constexpr const char* kConfigDigest = "9eddb62b076f586b2186445e7872e5a05f0dfe06";
constexpr const char* kWeightsDigest =
    "52adc74ddb3958e73ac816b47fec795fc366dc80358be0dce7e607071e1a0407";

std::string weights() {
  std::string text;
  for (std::int64_t i = 0; i < 300'000; ++i) {
    text += static_cast<char>((i * i * 31 + i / 251) % 251);
  }
  return text;
}

Json listing() {
  return {{"sha", kCommit},
          {"siblings",
           {{{"rfilename", "config.json"}, {"size", 24}, {"blobId", kConfigDigest}},
            {{"rfilename", "sub/model.safetensors"},
             {"size", 300'000},
             {"blobId", "1111111111111111111111111111111111111111"},
             {"lfs", {{"sha256", kWeightsDigest}, {"size", 300'000}}}}}}};
}

// What a sound hub says, ranges included.
HubReply sound(const HubRequest& request) {
  if (request.target.starts_with("/api/models/org/model/revision/")) {
    return {.headers = {"Content-Type: application/json"}, .body = listing().dump()};
  }
  const bool config = request.target.ends_with("/config.json");
  if (!config && !request.target.ends_with("/model.safetensors")) return {.status = 404};
  std::string body = config ? kConfig : weights();
  const auto range = request.headers.find("range");
  if (range == request.headers.end()) return {.body = body};
  const std::size_t from = std::stoul(range->second.substr(6));
  return {
      .status = 206,
      .headers = {fmt::format("Content-Range: bytes {}-{}/{}", from, body.size() - 1, body.size())},
      .body = body.substr(from)};
}

class PullTest : public testing::Test {
 protected:
  PullReport pull_from(const FakeHub& server, const std::string& model = "org/model",
                       std::vector<std::string> include = {}) {
    PullOptions options;
    options.endpoint = server.address();
    options.token = "hf_secret";
    options.cache = dir.path();
    options.include = std::move(include);
    options.wait = [this](std::int64_t seconds) {
      const std::lock_guard lock(mutex_);
      waited.push_back(seconds);
    };
    return pull(parse_repository_name(model), options);
  }

  std::filesystem::path blob(const std::string& digest) const {
    return dir / ("models--org--model/blobs/" + digest);
  }
  void expect_whole(const PullReport& report) const {
    EXPECT_EQ(read_text_file(report.snapshot / "config.json"), kConfig);
    EXPECT_EQ(read_text_file(report.snapshot / "sub/model.safetensors"), weights());
  }

  TempDir dir;
  std::vector<std::int64_t> waited;

 private:
  std::mutex mutex_;
};

TEST_F(PullTest, FillsTheCacheAsHuggingfaceHubDoes) {
  const FakeHub server(sound);
  const PullReport report = pull_from(server);
  expect_whole(report);
  EXPECT_EQ(report.snapshot, dir / ("models--org--model/snapshots/" + std::string(kCommit)));
  EXPECT_EQ(std::filesystem::read_symlink(report.snapshot / "config.json").string(),
            std::string("../../blobs/") + kConfigDigest);
  EXPECT_EQ(std::filesystem::read_symlink(report.snapshot / "sub/model.safetensors").string(),
            std::string("../../../blobs/") + kWeightsDigest);
  EXPECT_EQ(read_text_file(dir / "models--org--model/refs/main"), kCommit);
  EXPECT_EQ(report.files, 2);
  EXPECT_EQ(report.fetched, 2);
  EXPECT_EQ(report.bytes, 300'024);
  for (const HubRequest& request : server.requests()) {
    EXPECT_EQ(request.headers.at("authorization"), "Bearer hf_secret");
  }
  const std::size_t before = server.requests().size();
  EXPECT_EQ(pull_from(server).fetched, 0);
  EXPECT_EQ(server.requests().size(), before + 1);  // the list alone
}

TEST_F(PullTest, AsksForARevisionAndForFilesThatMatch) {
  const FakeHub server(sound);
  const PullReport report = pull_from(server, "org/model:refs/pr/1", {"*.json", "nothing"});
  EXPECT_EQ(report.files, 1);
  EXPECT_EQ(read_text_file(dir / "models--org--model/refs/refs/pr/1"), kCommit);
  EXPECT_EQ(server.requests()[0].target, "/api/models/org/model/revision/refs%2Fpr%2F1?blobs=true");
  EXPECT_FALSE(std::filesystem::exists(report.snapshot / "sub"));
  EXPECT_ERROR(pull_from(server, "org/model", {"*.gguf"}), ErrorKind::kUsage, "--include");
}

TEST_F(PullTest, GoesOnAfterConnectionsThatAreCut) {
  std::atomic<int> cuts = 0;
  const FakeHub server([&](const HubRequest& request) {
    HubReply reply = sound(request);
    if (request.target.ends_with(".safetensors") && cuts < 9) {
      ++cuts;
      reply.cut_after = 20'000;
    }
    return reply;
  });
  expect_whole(pull_from(server));
  std::vector<std::string> ranges;
  for (const HubRequest& request : server.requests()) {
    if (request.headers.contains("range")) ranges.push_back(request.headers.at("range"));
  }
  EXPECT_EQ(ranges.size(), 9u);
  EXPECT_EQ(ranges.front(), "bytes=20000-");
  EXPECT_EQ(ranges.back(), "bytes=180000-");
}

TEST_F(PullTest, StopsWhenNothingComesAndGoesOnLater) {
  {
    const FakeHub server([](const HubRequest& request) {
      HubReply reply = sound(request);
      if (request.target.ends_with(".safetensors")) {
        reply.cut_after = request.headers.contains("range") ? 0 : 100'000;
      }
      return reply;
    });
    EXPECT_ERROR(pull_from(server), ErrorKind::kDisk, "goes on where it stopped");
    EXPECT_EQ(waited, (std::vector<std::int64_t>{1, 2, 4, 8, 16}));
  }
  EXPECT_EQ(std::filesystem::file_size(blob(kWeightsDigest).string() + ".incomplete"), 100'000u);
  EXPECT_FALSE(std::filesystem::exists(blob(kWeightsDigest)));
  EXPECT_FALSE(std::filesystem::exists(dir / "models--org--model/refs"));
  const FakeHub server(sound);
  expect_whole(pull_from(server));
  EXPECT_EQ(server.requests().back().headers.at("range"), "bytes=100000-");
  EXPECT_FALSE(std::filesystem::exists(blob(kWeightsDigest).string() + ".incomplete"));
}

TEST_F(PullTest, GoesOnAfterItWasKilled) {
  const std::filesystem::path partial = blob(kWeightsDigest).string() + ".incomplete";
  std::atomic<bool> dead = false;
  {
    const FakeHub server([&](const HubRequest& request) {
      HubReply reply = sound(request);
      if (request.target.ends_with(".safetensors")) {  // the rest never comes
        reply.headers = {"Content-Length: 300000"};
        reply.cut_after = 150'000;
      }
      return reply;
    });
    const pid_t child = fork();
    if (child == 0) {
      PullOptions options{server.address(), "", dir.path(), {}, 1, [](std::int64_t) { pause(); }};
      pull(parse_repository_name("org/model"), options);
      _exit(0);
    }
    for (int i = 0; i < 2000 && !dead; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      std::error_code missing;
      dead = std::filesystem::file_size(partial, missing) == 150'000;
    }
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  EXPECT_TRUE(dead);
  const FakeHub server(sound);
  expect_whole(pull_from(server));
  EXPECT_EQ(server.requests().back().headers.at("range"), "bytes=150000-");
}

TEST_F(PullTest, RefusesOtherSizesAndOtherContent) {
  std::string body = weights();
  std::vector<std::string> headers;
  const FakeHub server([&](const HubRequest& request) {
    if (!request.target.ends_with(".safetensors")) return sound(request);
    return HubReply{.headers = headers, .body = body};
  });
  body += "more";
  EXPECT_ERROR(pull_from(server), ErrorKind::kCorrupt, "longer than the 300000 bytes");
  body = weights();
  body[1000] ^= 1;
  EXPECT_ERROR(pull_from(server), ErrorKind::kCorrupt, "checksum");
  EXPECT_FALSE(std::filesystem::exists(blob(kWeightsDigest)));
  EXPECT_FALSE(std::filesystem::exists(blob(kWeightsDigest).string() + ".incomplete"));
  body = weights().substr(0, 1000);  // and says that this is all
  EXPECT_ERROR(pull_from(server), ErrorKind::kDisk, "short");
  body = weights();
  expect_whole(pull_from(server));
}

TEST_F(PullTest, FetchesAnewWhatLaySpoiledInTheCache) {
  std::filesystem::create_directories(blob("").parent_path());
  std::ofstream(blob(kWeightsDigest).string() + ".incomplete") << std::string(300'000, 'x');
  const FakeHub server(sound);
  expect_whole(pull_from(server));
}

TEST_F(PullTest, ServersWithoutRangesSendAllOfIt) {
  std::filesystem::create_directories(blob("").parent_path());
  std::ofstream(blob(kWeightsDigest).string() + ".incomplete") << weights().substr(0, 70'000);
  const FakeHub server([](const HubRequest& request) {
    HubRequest whole = request;
    whole.headers.erase("range");
    return sound(whole);
  });
  expect_whole(pull_from(server));
}

TEST_F(PullTest, TheTokenStaysWithTheHub) {
  const FakeHub store(sound);
  const FakeHub server([&](const HubRequest& request) -> HubReply {
    if (request.target.ends_with(".safetensors")) {
      return {.status = 302,
              .headers = {"Location: " + store.address() + "/x?signed=1&of=/model.safetensors"}};
    }
    if (request.target.ends_with("/config.json") && !request.target.starts_with("/moved")) {
      return {.status = 307, .headers = {"Location: /moved/config.json"}};
    }
    return sound(request);
  });
  expect_whole(pull_from(server));
  ASSERT_EQ(store.requests().size(), 1u);
  EXPECT_FALSE(store.requests()[0].headers.contains("authorization"));
  for (const HubRequest& request : server.requests()) {
    EXPECT_TRUE(request.headers.contains("authorization")) << request.target;
  }
}

TEST_F(PullTest, RefusesRedirectsThatLeadNowhere) {
  std::string location;
  const FakeHub server([&](const HubRequest&) -> HubReply {
    return {.status = 302, .headers = {"Location: " + location}};
  });
  location = "/again";
  EXPECT_ERROR(pull_from(server), ErrorKind::kCorrupt, "redirects");
  location = "file:///etc/passwd";
  EXPECT_ERROR(pull_from(server), ErrorKind::kCorrupt, "no http");
  EXPECT_ERROR(redirect_target("https://a/b", "http://a/c"), ErrorKind::kCorrupt, "to http");
  EXPECT_EQ(redirect_target("https://a/b/c?d=e", "../f"), "https://a/f");
}

TEST_F(PullTest, SaysWhatToDoWhenItMayNot) {
  HubReply reply;
  const FakeHub server([&](const HubRequest&) { return reply; });
  reply = {.status = 401};
  EXPECT_ERROR(pull_from(server), ErrorKind::kUsage, "HF_TOKEN");
  reply = {.status = 403};
  EXPECT_ERROR(pull_from(server), ErrorKind::kUsage, "conditions");
  reply = {.status = 404};
  EXPECT_ERROR(pull_from(server), ErrorKind::kUsage, "not there");
  EXPECT_EQ(server.requests().size(), 3u);
  reply = {.status = 429, .headers = {"Retry-After: 100000"}};
  EXPECT_ERROR(pull_from(server), ErrorKind::kDisk, "429");
  EXPECT_TRUE(waited.empty());
}

TEST_F(PullTest, WaitsAsLongAsItIsTold) {
  std::atomic<int> refusals = 0;
  const FakeHub server([&](const HubRequest& request) -> HubReply {
    if (request.target.ends_with(".safetensors") && refusals++ < 3) {
      return {.status = refusals == 3 ? 503 : 429, .headers = {"Retry-After: 17"}};
    }
    return sound(request);
  });
  expect_whole(pull_from(server));
  EXPECT_EQ(waited, (std::vector<std::int64_t>{17, 17, 17}));
}

TEST_F(PullTest, TakesChecksumsFromHeadersWhereTheListHasNone) {
  const FakeHub store([](const HubRequest&) -> HubReply { return {.status = 403}; });
  const FakeHub server([&](const HubRequest& request) {
    HubReply reply = sound(request);
    const bool large = request.target.ends_with(".safetensors");
    if (request.target.starts_with("/api/")) {
      Json list = listing();
      for (Json& file : list["siblings"]) file = {{"rfilename", file["rfilename"]}};
      reply.body = list.dump();
    } else if (request.method == "HEAD" && large) {  // as the hub answers for large files
      return HubReply{.status = 302,
                      .headers = {"Location: " + store.address(), "X-Linked-Size: 300000",
                                  fmt::format("X-Linked-Etag: \"{}\"", kWeightsDigest)}};
    } else {
      reply.headers.push_back(
          fmt::format("ETag: W/\"{}\"", large ? kWeightsDigest : kConfigDigest));
    }
    return reply;
  });
  expect_whole(pull_from(server));
  EXPECT_TRUE(store.requests().empty());
}

TEST_F(PullTest, RefusesPathsThatLeaveTheFolder) {
  for (const char* path :
       {"../x", "a/../../x", "/etc/x", "a//b", "a/./b", "", "a\\b", "a\nb", ".."}) {
    const FakeHub server([&](const HubRequest&) {
      Json list = listing();
      list["siblings"][0]["rfilename"] = path;
      return HubReply{.body = list.dump()};
    });
    EXPECT_ERROR(pull_from(server), ErrorKind::kCorrupt, "no path within a folder");
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(Hub, NamesOfModels) {
  EXPECT_EQ(parse_repository_name("gpt2").name, "gpt2");
  EXPECT_EQ(parse_repository_name("org/m-1.5_x").revision, "main");
  EXPECT_EQ(parse_repository_name("org/m:v1.0").revision, "v1.0");
  EXPECT_EQ(repository_folder({"org/m", ""}), "models--org--m");
  for (const char* name : {"", "/", "a/b/c", "../b", "a/..", "a b/c", "a/b:", "a/b:../x",
                           "a/b:x//y", "-a/b", "a--b/c", "a/b:x\n"}) {
    EXPECT_ERROR(parse_repository_name(name), ErrorKind::kUsage, "ORG/MODEL");
  }
}

TEST(Hub, ListsThatContradictThemselves) {
  const auto refused = [](const Json& list) {
    EXPECT_ERROR(parse_repository_files(list.dump(), "x"), ErrorKind::kCorrupt, "x");
  };
  refused(Json::array());
  refused({{"sha", "../../x"}, {"siblings", Json::array()}});
  refused({{"sha", kCommit}, {"siblings", 3}});
  refused({{"sha", kCommit}, {"siblings", {3}}});
  Json twice = listing();
  twice["siblings"][1] = twice["siblings"][0];
  refused(twice);
  // A checksum becomes the name of a file.
  Json odd = listing();
  odd["siblings"][0]["blobId"] = "../../../x";
  EXPECT_EQ(parse_repository_files(odd.dump(), "x").files[0].digest, "");
  EXPECT_EQ(digest_of_etag("\"../x\""), "");
  EXPECT_EQ(digest_of_etag(fmt::format("\"{}\"", kWeightsDigest)), kWeightsDigest);
}

TEST(Hub, RetryAfterIsSecondsOrADate) {
  const auto now = std::chrono::system_clock::from_time_t(784'111'777);  // RFC 9110's example
  EXPECT_EQ(parse_retry_after("120", now), 120);
  EXPECT_EQ(parse_retry_after("Sun, 06 Nov 1994 08:49:47 GMT", now), 10);
  EXPECT_EQ(parse_retry_after("Sun, 06 Nov 1994 08:49:07 GMT", now), 0);
  EXPECT_EQ(parse_retry_after("-5", now), std::nullopt);
  EXPECT_EQ(parse_retry_after("soon", now), std::nullopt);
}

// As huggingface_hub reads them.
TEST(Hub, EnvironmentSaysWhereAndWho) {
  const std::map<std::string, std::string> none = {
      {"HF_ENDPOINT", ""}, {"HF_TOKEN", ""},       {"HF_TOKEN_PATH", ""}, {"HF_HUB_CACHE", ""},
      {"HF_HOME", ""},     {"XDG_CACHE_HOME", ""}, {"HOME", "/home/x"}};
  const auto options = [&](const std::map<std::string, std::string>& set) {
    for (const auto& [name, value] : none) setenv(name.c_str(), value.c_str(), 1);
    for (const auto& [name, value] : set) setenv(name.c_str(), value.c_str(), 1);
    return pull_options_from_environment();
  };
  const char* const home = std::getenv("HOME");
  const std::string kept = home == nullptr ? "" : home;
  EXPECT_EQ(options({}).endpoint, "https://huggingface.co");
  EXPECT_EQ(options({}).cache, "/home/x/.cache/huggingface/hub");
  EXPECT_EQ(options({{"XDG_CACHE_HOME", "/c"}}).cache, "/c/huggingface/hub");
  EXPECT_EQ(options({{"HF_HOME", "/h"}}).cache, "/h/hub");
  EXPECT_EQ(options({{"HF_HOME", "/h"}, {"HF_HUB_CACHE", "/k"}}).cache, "/k");
  EXPECT_EQ(options({{"HF_ENDPOINT", "https://mirror/"}}).endpoint, "https://mirror");
  EXPECT_EQ(options({{"HF_TOKEN", " t\n"}}).token, "t");
  TempDir dir;
  std::ofstream(dir / "token") << "from_file\n";
  EXPECT_EQ(options({{"HF_HOME", dir.path().string()}}).token, "from_file");
  EXPECT_ERROR(options({{"HF_ENDPOINT", "ftp://x"}}), ErrorKind::kUsage, "HF_ENDPOINT");
  EXPECT_ERROR(options({{"HF_TOKEN", "a\r\nX: b"}}), ErrorKind::kUsage, "HF_TOKEN");
  setenv("HOME", kept.c_str(), 1);
  for (const auto& [name, value] : none) {
    if (name != "HOME") unsetenv(name.c_str());
  }
}

}  // namespace
}  // namespace nibble::hub
