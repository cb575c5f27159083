#include "base/content_hash.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

std::string hash_of(std::string_view text) {
  ContentHash hash;
  hash.add(text);
  return hash.hex();
}

// The vectors of draft-eastlake-fnv.
TEST(ContentHash, PublishedVectors) {
  EXPECT_EQ(hash_of(""), "6c62272e07bb014262b821756295c58d");
  EXPECT_EQ(hash_of("a"), "d228cb696f1a8caf78912b704e4a8964");
  EXPECT_EQ(hash_of("foobar"), "343e1662793c64bf6f0d3597ba446f18");
}

TEST(ContentHash, PiecesAreOneText) {
  ContentHash pieces;
  pieces.add("foo");
  pieces.add("");
  pieces.add("bar");
  EXPECT_EQ(pieces.hex(), hash_of("foobar"));
}

}  // namespace
}  // namespace nibble
