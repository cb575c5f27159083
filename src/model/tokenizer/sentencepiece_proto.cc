#include "model/tokenizer/sentencepiece_proto.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "model/tokenizer/precompiled.h"
#include "model/tokenizer/trie.h"

namespace nibble {
namespace {

// One field of a protobuf message.
struct Field {
  std::uint64_t number = 0;
  std::uint64_t value = 0;  // of varints and fixed-width fields
  std::string_view bytes;   // of length-delimited fields
};

class WireReader {
 public:
  WireReader(std::string_view bytes, std::string_view what) : bytes_(bytes), what_(what) {}

  bool next(Field& field) {
    if (bytes_.empty()) return false;
    const std::uint64_t key = varint();
    field = Field();
    field.number = key >> 3;
    switch (key & 7) {
      case 0:
        field.value = varint();
        break;
      case 1:
        field.value = fixed<std::uint64_t>();
        break;
      case 2:
        field.bytes = take(varint());
        break;
      case 5:
        field.value = fixed<std::uint32_t>();
        break;
      default:
        corrupt();
    }
    if (field.number == 0) corrupt();
    return true;
  }

 private:
  [[noreturn]] void corrupt() const {
    fail(ErrorKind::kCorrupt, "{}: not a SentencePiece model (damaged protobuf)", what_);
  }

  std::string_view take(std::uint64_t count) {
    if (count > bytes_.size()) corrupt();
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    corrupt();
  }

  template <class T>
  T fixed() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }

  std::string_view bytes_;
  std::string_view what_;
};

using Proto = SentencePieceProto;

Proto::Piece parse_piece(std::string_view bytes, std::string_view what) {
  Proto::Piece piece;
  WireReader reader(bytes, what);
  for (Field f; reader.next(f);) {
    if (f.number == 1) piece.text = f.bytes;
    if (f.number == 2) piece.score = std::bit_cast<float>(static_cast<std::uint32_t>(f.value));
    if (f.number == 3) piece.type = static_cast<int>(f.value);
  }
  // The library keeps pieces as C strings in places, so a NUL inside one would cut it short there.
  const bool text_ok = !piece.text.empty() && piece.text.find('\0') == std::string::npos &&
                       piece.text.size() <= Trie::kMaxKeyBytes && is_valid_utf8(piece.text);
  if (!text_ok || !std::isfinite(piece.score)) {
    fail(ErrorKind::kCorrupt, "{}: piece '{}' is damaged", what,
         is_valid_utf8(piece.text) ? piece.text.substr(0, 32) : "(not UTF-8)");
  }
  return piece;
}

void parse_trainer_spec(std::string_view bytes, std::string_view what, Proto& proto) {
  WireReader reader(bytes, what);
  for (Field f; reader.next(f);) {
    // int32 fields are sign-extended to 64 bits on the wire.
    if (f.number == 3) proto.model_type = static_cast<int>(f.value);
    if (f.number == 41) proto.bos_id = static_cast<std::int64_t>(f.value);
    if (f.number == 42) proto.eos_id = static_cast<std::int64_t>(f.value);
    if (f.number == 44) proto.unk_surface = f.bytes;
  }
}

// Both the normalizer and the denormalizer are messages of this kind.
void parse_normalizer_spec(std::string_view bytes, std::string_view what, Proto* proto) {
  WireReader reader(bytes, what);
  for (Field f; reader.next(f);) {
    if (f.number == 2 && !f.bytes.empty()) PrecompiledMap(f.bytes, what);
    if (proto == nullptr) continue;
    if (f.number == 3) proto->add_dummy_prefix = f.value != 0;
    if (f.number == 4) proto->remove_extra_whitespaces = f.value != 0;
  }
}

}  // namespace

SentencePieceProto parse_sentencepiece_proto(std::string_view bytes, std::string_view what) {
  constexpr std::size_t kMaxPieces = std::size_t{1} << 22;
  Proto proto;
  WireReader reader(bytes, what);
  for (Field f; reader.next(f);) {
    if (f.number == 1) proto.pieces.push_back(parse_piece(f.bytes, what));
    if (f.number == 2) parse_trainer_spec(f.bytes, what, proto);
    if (f.number == 3) parse_normalizer_spec(f.bytes, what, &proto);
    if (f.number == 5) parse_normalizer_spec(f.bytes, what, nullptr);
    if (proto.pieces.size() > kMaxPieces) fail(ErrorKind::kCorrupt, "{}: too many pieces", what);
  }
  if (proto.pieces.empty()) fail(ErrorKind::kCorrupt, "{}: no pieces", what);
  if (proto.model_type != 1 && proto.model_type != 2) {
    fail(ErrorKind::kUnsupported, "{}: SentencePiece model type {} (only unigram and BPE)", what,
         proto.model_type);
  }
  if (!is_valid_utf8(proto.unk_surface)) fail(ErrorKind::kCorrupt, "{}: unk_surface", what);
  return proto;
}

}  // namespace nibble
