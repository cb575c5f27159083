#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <ostream>

#include "base/error.h"
#include "base/file.h"
#include "cli/command.h"
#include "cli/rounding_options.h"
#include "model/tokenizer/chat_template.h"
#include "runtime/embedder.h"
#include "runtime/engine.h"
#include "runtime/engine_limits.h"
#include "runtime/pooling.h"
#include "server/api.h"
#include "server/http_server.h"

namespace nibble::cli {
namespace {

struct ServeOptions {
  std::string model;
  std::string synthetic;
  std::string host = "127.0.0.1";
  std::uint16_t port = 8000;
  std::string unix_path;
  std::vector<std::string> api_keys;
  std::string api_key_file;
  std::vector<std::string> names;
  std::string chat_template_file;
  std::string generation_config = "auto";
  std::string kv_type;
  RoundingArguments rounding;
  std::string draft;
  std::string pooling = "auto";
  bool deterministic = false;
  double swap_gib = -1;  // negative: by the device
  EngineOptions engine;
  server::HttpOptions http;
  double drain_seconds = 120;
  double timeout_seconds = 60;
  bool no_access_log = false;
};

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) lines.push_back(std::move(line));
    at = end + 1;
  }
  return lines;
}

// Of the command line, NIBBLE_API_KEY (several divided by commas) and the file, together.
std::vector<std::string> api_keys(const ServeOptions& options) {
  std::vector<std::string> keys = options.api_keys;
  if (const char* from_environment = std::getenv("NIBBLE_API_KEY")) {
    for (std::string& key : CLI::detail::split(from_environment, ',')) {
      if (!key.empty()) keys.push_back(std::move(key));
    }
  }
  if (!options.api_key_file.empty()) {
    for (std::string& key : lines_of(read_text_file(options.api_key_file))) {
      keys.push_back(std::move(key));
    }
  }
  return keys;
}

// What models of every kind are served with.
server::ServiceOptions base_options(const ServeOptions& options, const Session& session) {
  server::ServiceOptions service;
  service.names = options.names;
  if (service.names.empty()) {
    service.names = {options.model.empty() ? options.synthetic : options.model};
  }
  service.defaults.vocab = session.model->spec().vocab;
  service.api_keys = api_keys(options);
  return service;
}

server::ServiceOptions service_options(const ServeOptions& options, const Session& session,
                                       const Context& context) {
  server::ServiceOptions service = base_options(options, session);
  if (!options.chat_template_file.empty()) {
    service.chat_template = read_text_file(options.chat_template_file);
  } else if (session.checkpoint != nullptr) {
    service.chat_template = chat_template_of(*session.checkpoint);
  }
  if (!service.chat_template) {
    log(context.log(), LogLevel::kWarning,
        "the model has no chat template: chats become plain \"role: text\" paragraphs");
  }
  const bool own = options.generation_config == "auto";
  service.defaults.sampling =
      server::default_sampling(own ? session.generation_config : Json::object());
  service.defaults.tagged_calls =
      service.chat_template && service.chat_template->find("<tool_call>") != std::string::npos;
  if (options.deterministic) service.default_seed = 0;
  return service;
}

server::Listener open_listener(const ServeOptions& options) {
  if (auto inherited = server::inherited_listener()) return std::move(*inherited);
  if (!options.unix_path.empty()) return server::listen_unix(options.unix_path);
  return server::listen_tcp(options.host, options.port);
}

server::HttpOptions http_options(const ServeOptions& options, const Context& context) {
  const auto milliseconds = [](double seconds) {
    return std::chrono::milliseconds(static_cast<std::int64_t>(1e3 * seconds));
  };
  server::HttpOptions http = options.http;
  http.read_timeout = milliseconds(options.timeout_seconds);
  http.write_timeout = http.read_timeout;
  http.drain_timeout = milliseconds(options.drain_seconds);
  http.handle_signals = true;
  if (!options.no_access_log && !context.quiet) {
    http.access_log = [&context, mutex = std::make_shared<std::mutex>()](const std::string& line) {
      const std::lock_guard lock(*mutex);
      context.err() << line << std::endl;
    };
  }
  return http;
}

// Answers clients until SIGTERM, and then those that are being answered. `worker` is what runs the
// model: its thread must not outlive the server.
template <class Worker>
void serve_until_told(server::Listener listener, server::Service& service,
                      std::unique_ptr<Worker> worker, const ServeOptions& options,
                      const Context& context) {
  const std::string address = listener.address();
  server::HttpServer server(std::move(listener), http_options(options, context),
                            server::make_api(service));
  context.emit(
      {{"address", address}, {"model", service.name()}, {"max_model_len", service.max_model_len()}},
      fmt::format("serving {} at {}", service.name(), address));
  context.out().flush();
  server.run();
  worker.reset();
  log(context.log(), LogLevel::kInfo, "drained");
}

// The same request gives the same bytes whatever runs beside it: one linear kernel for any number
// of rows, and none that rounds activations. (Seeds are taken care of by the service.)
std::unique_ptr<Backend> make_serving_backend(const ServeOptions& options, Context& context) {
  if (!options.deterministic) return context.make_backend();
  const auto usual = context.make_cpu_backend("serve --deterministic");
  context.device = "cpu";
  context.exact = true;
  for (const ImplRow& row : usual->impl_rows()) {  // the best first
    const bool fits = row.op == "linear" && row.usable && row.name.ends_with("_blocked");
    if (fits) {
      return context.make_backend("linear:" + row.name + ",attention:reference");
    }
  }
  fail(ErrorKind::kUnsupported, "serve: no kernel of this machine gives the same for any batch");
}

// Without a card the swap space would take from the same memory as the cache itself.
std::size_t swap_bytes(const ServeOptions& options, bool on_host) {
  constexpr double kUsualGib = 4;  // vLLM's
  constexpr double kBytes = 1 << 30;
  const double usual = on_host ? 0 : kUsualGib;
  return static_cast<std::size_t>(kBytes * (options.swap_gib < 0 ? usual : options.swap_gib));
}

// An encoder's vectors, at /v1/embeddings.
void serve_encoder(const ServeOptions& options, const Session& session, server::Listener listener,
                   Context& context) {
  const EngineOptions& limits = options.engine;
  const PoolingRule rule = pooling_of(session.checkpoint->path());
  EmbedderOptions embedding = {.max_model_len = limits.max_model_len,
                               .max_num_seqs = limits.max_num_seqs,
                               .max_num_batched_tokens = limits.max_num_batched_tokens,
                               .max_waiting = limits.max_waiting};
  if (limits.max_model_len == 0) embedding.max_model_len = rule.max_tokens;
  embedding.pooling = options.pooling == "auto"  ? rule.pooling
                      : options.pooling == "cls" ? Pooling::kCls
                                                 : Pooling::kMean;
  auto embedder = std::make_unique<Embedder>(session, embedding);
  server::ServiceOptions service_options = base_options(options, session);
  service_options.normalize_embeddings = rule.normalize;
  server::Service service(session.require_tokenizer(), *embedder, std::move(service_options));
  serve_until_told(std::move(listener), service, std::move(embedder), options, context);
}

void serve(const ServeOptions& options, Context& context) {
  if (options.model.empty() == options.synthetic.empty()) {
    fail(ErrorKind::kUsage, "serve: give a checkpoint or --synthetic NAME");
  }
  if (!options.draft.empty() && options.engine.speculative.tokens == 0) {
    fail(ErrorKind::kUsage, "serve: --speculative-model needs --num-speculative-tokens");
  }
  const ModelFormat rounding = rounding_of(options.rounding);
  // A taken port is found before a large model is loaded.
  server::Listener listener = open_listener(options);
  const auto backend = make_serving_backend(options, context);
  EngineOptions engine_options = options.engine;
  engine_options.device_bytes = backend->memory().available();
  engine_options.swap_bytes = swap_bytes(options, backend->memory().is_host());
  const RoomRule besides = [&](const ModelSpec& spec, const KvFormat& kv_type) {
    return spec.decoder ? engine_room(spec, kv_type, engine_options) : Room{};
  };
  const std::optional<KvFormat> kv_type = parse_kv_format(options.kv_type);
  const Session session =
      options.synthetic.empty()
          ? context.open(options.model, *backend, kv_type, rounding, besides)
          : open_synthetic_session(options.synthetic, *backend, kv_type, rounding, besides);
  if (!session.model->spec().decoder) {
    return serve_encoder(options, session, std::move(listener), context);
  }
  std::optional<Session> draft;
  if (!options.draft.empty()) {
    draft = context.open(options.draft, *backend);
    engine_options.draft = &*draft;
  }
  auto engine = make_engine(session, engine_options);
  server::Service service(session.require_tokenizer(), *engine,
                          service_options(options, session, context));
  serve_until_told(std::move(listener), service, std::move(engine), options, context);
}

void add_engine_options(CLI::App* command, ServeOptions& options) {
  EngineOptions& engine = options.engine;
  command->add_option("--max-model-len", engine.max_model_len,
                      "Most tokens of prompt and answer (default: the model's)");
  command->add_option("--max-num-seqs", engine.max_num_seqs, "Requests that run at once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      ->add_option("--max-num-batched-tokens", engine.max_num_batched_tokens,
                   "Tokens of one step, of prompts and answers together")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--max-waiting", engine.max_waiting, "Requests that may wait; more get 429")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--kv-cache-memory-bytes", engine.kv_cache_bytes,
                      "Memory of keys and values (default on a CPU: half of what is free)");
  command
      ->add_option("--swap-space", options.swap_gib,
                   "GiB of the host's memory for keys and values of requests that are put back "
                   "(default: 4 with a card, else 0: they are computed again)")
      ->check(CLI::Range(0.0, 1e6));
  command
      ->add_option("--gpu-memory-utilization", engine.memory_utilization,
                   "Share of a card's memory for weights, keys and values, and steps together")
      ->check(CLI::Range(0.01, 1.0))
      ->capture_default_str();
  command->add_flag(
      "--deterministic", options.deterministic,
      "The same bytes whatever runs beside a request, unseeded ones too (CPU; slower)");
  command->add_option("--block-size", engine.block_size, "Tokens of a block of the KV cache")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_flag("--enable-prefix-caching,!--no-enable-prefix-caching",
                    engine.enable_prefix_caching,
                    "Share the keys and values of common beginnings (default: on)");
  add_kv_option(command, options.kv_type, "the type of the stored embedding");
}

void add_speculation_options(CLI::App* command, ServeOptions& options) {
  SpeculativeOptions& speculative = options.engine.speculative;
  command
      ->add_option("--num-speculative-tokens", speculative.tokens,
                   "Tokens to guess ahead where that is faster; 0: none")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  command->add_option(
      "--speculative-model", options.draft,
      "Checkpoint with the same vocabulary that guesses (default: what followed the "
      "last words before, in prompt or answer)");
  command->add_option("--prompt-lookup-max", speculative.longest_ngram, "Longest run looked up")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command->add_option("--prompt-lookup-min", speculative.shortest_ngram, "Shortest run looked up")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
}

void add_http_options(CLI::App* command, ServeOptions& options) {
  command->add_option("--host", options.host, "Address to listen at")->capture_default_str();
  command->add_option("--port", options.port, "Port; 0 takes a free one")->capture_default_str();
  command->add_option("--uds", options.unix_path, "Listen on this Unix socket instead");
  command->add_option("--api-key", options.api_keys,
                      "Key that clients must send (repeatable; also NIBBLE_API_KEY)");
  command->add_option("--api-key-file", options.api_key_file, "File with a key a line");
  command->add_option("--http-threads", options.http.threads, "Threads for clients and tokenizing")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command->add_option("--max-body-bytes", options.http.max_body_bytes, "Largest request")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--max-connections", options.http.max_connections, "Open connections")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      ->add_option("--timeout", options.timeout_seconds,
                   "Seconds for a request to arrive or a write to be taken")
      ->check(CLI::Range(0.1, 86400.0))
      ->capture_default_str();
  command
      ->add_option("--drain-timeout", options.drain_seconds,
                   "Seconds for running answers after SIGTERM")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
  command->add_flag("--no-access-log", options.no_access_log, "No line on stderr for each request");
}

}  // namespace

void add_serve(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("serve", "Serve an OpenAI-compatible API");
  auto options = add_command<ServeOptions>(command, context, serve);
  command->add_option("model", options->model, "Checkpoint");
  command->add_option("--synthetic", options->synthetic,
                      "Random weights of this shape instead, to measure speed (see synth --help)");
  command->add_option("--served-model-name", options->names,
                      "Names that clients may use (default: the path as given)");
  command->add_option("--chat-template", options->chat_template_file,
                      "Jinja file instead of the checkpoint's template");
  command
      ->add_option("--generation-config", options->generation_config,
                   "auto: sampling defaults of generation_config.json; none: temperature 1")
      ->check(CLI::IsMember({"auto", "none"}))
      ->capture_default_str();
  command
      ->add_option("--pooling", options->pooling,
                   "Of an encoder: how a text's vector is made (auto: as the checkpoint says, or "
                   "else mean)")
      ->check(CLI::IsMember({"auto", "mean", "cls"}))
      ->capture_default_str();
  add_rounding_options(command, options->rounding,
                       "Round the model to this format at load (w=..,a=..,e=..,kv=..)");
  add_engine_options(command, *options);
  add_speculation_options(command, *options);
  add_http_options(command, *options);
}

}  // namespace nibble::cli
