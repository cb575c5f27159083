// Tiles of the AMX units: two by two sums of 16 x 16 numbers, two tiles of activations, two of
// weights. Included inside an anonymous namespace of an ISA unit.

constexpr std::int64_t kAmxRows = 16;
constexpr std::int64_t kAmxRowBytes = 64;  // of a row

// The layout that LDTILECFG reads (Intel 64 manual, volume 1, 18.3).
struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// In memory as a whole: GCC's intrinsic says that it reads eight bytes, and the stores of the
// others to a local would be dropped.
constexpr TileConfig kWholeTiles;

// All tiles are whole while an object lives; the state is small again afterwards.
class WholeTiles {
 public:
  WholeTiles() { _tile_loadconfig(&kWholeTiles); }
  ~WholeTiles() { _tile_release(); }
  WholeTiles(const WholeTiles&) = delete;
  WholeTiles& operator=(const WholeTiles&) = delete;
};
