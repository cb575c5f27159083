#include "checkpoint/aimet_encodings.h"

#include "base/error.h"
#include "base/json.h"
#include "formats/affine.h"

namespace nibble {
namespace {

// Codes that share a shape of scales: [rows, groups] of a matrix, [1, 1] of an input.
struct Encoding {
  std::string name;
  int bits = 0;
  bool symmetric = true;
  Granularity granularity = Granularity::kTensor;
  std::int64_t group = 0;
  std::int64_t rows = 1;
  std::vector<AffineParams> params;
};

// A float as the shortest decimal that reads back as it.
Json number(float value) { return parse_json(fmt::format("{}", value), "scale"); }

Json legacy(const Encoding& encoding) {
  Json list = Json::array();
  const int last = (1 << encoding.bits) - 1;
  for (const AffineParams& p : encoding.params) {
    list.push_back({{"bitwidth", encoding.bits},
                    {"dtype", "int"},
                    {"is_symmetric", encoding.symmetric ? "True" : "False"},
                    {"max", number(p.scale * static_cast<float>(last - p.zero))},
                    {"min", number(p.scale * static_cast<float>(-p.zero))},
                    {"offset", -p.zero},
                    {"scale", number(p.scale)}});
  }
  return list;
}

const char* granularity_name(const Encoding& encoding) {
  switch (encoding.granularity) {
    case Granularity::kChannel:
      return "PER_CHANNEL";
    case Granularity::kGroup:
      return "PER_BLOCK";
    default:
      return "PER_TENSOR";
  }
}

Json listed(const Encoding& encoding) {
  Json scales = Json::array(), offsets = Json::array();
  for (const AffineParams& p : encoding.params) {
    scales.push_back(number(p.scale));
    offsets.push_back(-p.zero);
  }
  Json json = {{"name", encoding.name},        {"dtype", "INT"},
               {"bw", encoding.bits},          {"enc_type", granularity_name(encoding)},
               {"is_sym", encoding.symmetric}, {"scale", std::move(scales)},
               {"offset", std::move(offsets)}};
  if (encoding.granularity == Granularity::kGroup) json["block_size"] = encoding.group;
  return json;
}

// Numbers, one for each scale, nested as ONNX has them.
template <class Value>
Json nested(const Encoding& encoding, const Value& value) {
  if (encoding.granularity == Granularity::kTensor) return value(encoding.params[0]);
  const std::size_t groups = encoding.params.size() / static_cast<std::size_t>(encoding.rows);
  Json result = Json::array();
  for (std::size_t row = 0; row < static_cast<std::size_t>(encoding.rows); ++row) {
    if (encoding.granularity == Granularity::kChannel) {
      result.push_back(value(encoding.params[row]));
      continue;
    }
    Json line = Json::array();
    for (std::size_t g = 0; g < groups; ++g)
      line.push_back(value(encoding.params[row * groups + g]));
    result.push_back(std::move(line));
  }
  return result;
}

Json onnx(const Encoding& encoding) {
  Json json = {
      {"name", encoding.name},
      {"output_dtype", fmt::format("{}int{}", encoding.symmetric ? "" : "u", encoding.bits)},
      {"y_scale", nested(encoding, [](const AffineParams& p) { return number(p.scale); })}};
  if (!encoding.symmetric) {
    json["y_zero_point"] = nested(encoding, [](const AffineParams& p) { return Json(p.zero); });
  }
  if (encoding.granularity == Granularity::kChannel) json["axis"] = 0;
  if (encoding.granularity == Granularity::kGroup) {
    json["axis"] = 1;
    json["block_size"] = encoding.group;
  }
  return json;
}

Encoding weight_encoding(const std::string& module, const QuantTensor& weight,
                         EncodingsSchema schema) {
  const WeightDescriptor& d = weight.format->descriptor();
  if (!weight.format->is_affine() || d.scheme.granularity == Granularity::kBlock) {
    fail(ErrorKind::kUnsupported,
         "module '{}': AIMET's encodings say integers by tensor, channel or group, not {}", module,
         weight.format->name());
  }
  if (schema == EncodingsSchema::k061 && d.scheme.granularity == Granularity::kGroup) {
    fail(ErrorKind::kUnsupported,
         "module '{}': schema 0.6.1 has no groups ({}); take 1.0.0 or 2.0.0", module,
         weight.format->name());
  }
  return {module + ".weight", d.element.bits, d.scheme.symmetric,      d.scheme.granularity,
          d.scheme.group,     weight.rows,    affine_params_of(weight)};
}

Encoding input_encoding(const std::string& module, const ActivationFormat& format) {
  const ActivationDescriptor& d = format.descriptor();
  if (d.element.kind != ElementKind::kInt) {
    fail(ErrorKind::kUnsupported,
         "module '{}': AIMET's encodings say inputs of integers, not of {}", module, format.name());
  }
  if (d.scope != ActivationScope::kTensor || format.fixed().empty()) {
    fail(ErrorKind::kUnsupported,
         "module '{}': AIMET's encodings say inputs under one static scale, not {}", module,
         format.name());
  }
  AffineParams params = format.fixed().front();
  if (d.symmetric) params.zero = 1 << (d.element.bits - 1);
  return {module + ".input.0", d.element.bits, d.symmetric, Granularity::kTensor, 0, 1, {params}};
}

// The members of a JSON array or object, as text: a Json of all scales of a large model would take
// many times what the file does.
class Members {
 public:
  void add(const std::string& text) {
    if (!text_.empty()) text_ += ",\n";
    text_ += text;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

std::string member(const std::string& key, const Json& value) {
  return Json(key).dump() + ": " + value.dump();
}

}  // namespace

EncodingsSchema parse_encodings_schema(std::string_view text) {
  if (text == "0.6.1") return EncodingsSchema::k061;
  if (text == "1.0.0") return EncodingsSchema::k100;
  if (text == "2.0.0") return EncodingsSchema::k200;
  fail(ErrorKind::kUsage, "schema '{}' of encodings is unknown; there are 0.6.1, 1.0.0 and 2.0.0",
       text);
}

EncodingsFile aimet_encodings(const WeightSource& source, const std::vector<std::string>& modules,
                              EncodingsSchema schema) {
  EncodingsFile file;
  Members weights, inputs;
  for (const std::string& module : modules) {
    const QuantTensor weight = source.linear(module);
    if (weight.format->is_float()) {
      file.plain.push_back(module);
    } else {
      const Encoding encoding = weight_encoding(module, weight, schema);
      weights.add(schema == EncodingsSchema::k061   ? member(encoding.name, legacy(encoding))
                  : schema == EncodingsSchema::k100 ? listed(encoding).dump()
                                                    : onnx(encoding).dump());
    }
    const ActivationFormatPtr rounding = source.activations(module);
    if (rounding == nullptr) continue;
    if (!rounding->descriptor().is_static) {
      file.dynamic.push_back(module);
      continue;
    }
    const Encoding encoding = input_encoding(module, *rounding);
    inputs.add(schema == EncodingsSchema::k061
                   ? member(module, {{"input", {{"0", legacy(encoding)[0]}}}})
               : schema == EncodingsSchema::k100 ? listed(encoding).dump()
                                                 : onnx(encoding).dump());
  }
  if (schema == EncodingsSchema::k200) {
    Members all;
    for (const Members* part : {&inputs, &weights}) {
      if (!part->text().empty()) all.add(part->text());
    }
    file.json = fmt::format("{{\"version\": \"2.0.0\", \"encodings\": [\n{}\n]}}\n", all.text());
    return file;
  }
  const bool maps = schema == EncodingsSchema::k061;
  file.json = fmt::format(
      "{{\"version\": \"{}\", \"activation_encodings\": {}\n{}\n{}, \"param_encodings\": "
      "{}\n{}\n{}}}\n",
      maps ? "0.6.1" : "1.0.0", maps ? '{' : '[', inputs.text(), maps ? '}' : ']', maps ? '{' : '[',
      weights.text(), maps ? '}' : ']');
  return file;
}

}  // namespace nibble
