// The parts of a SentencePiece model file (protobuf message ModelProto of
// sentencepiece_model.proto) that decoding needs and that must be checked before the SentencePiece
// library sees the bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

struct SentencePieceProto {
  enum PieceType {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6
  };
  struct Piece {
    std::string text;
    float score = 0;
    int type = kNormal;
  };
  std::vector<Piece> pieces;
  int model_type = 1;  // 1 unigram, 2 BPE
  std::int64_t bos_id = 1;
  std::int64_t eos_id = 2;
  std::string unk_surface = " \u2047 ";  // what an unknown piece decodes to
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
};

// kCorrupt unless the file is a well-formed message whose pieces, scores and character maps are
// safe to hand to the library; kUnsupported for model types other than unigram and BPE.
SentencePieceProto parse_sentencepiece_proto(std::string_view bytes, std::string_view what);

}  // namespace nibble
