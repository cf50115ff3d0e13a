// As much of HTTP/1.1 as a speech service needs, over POSIX sockets: one request a connection, one
// thread a connection, limits on everything that a client sends.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>

namespace service {

struct HttpLimits {
  std::size_t max_head_bytes = 16 << 10;
  std::size_t max_body_bytes = 64 << 10;
  int request_seconds = 10;  // to send a request
  int write_seconds = 10;    // without any progress of a reader
  int max_connections = 64;  // one more is refused with 503
};

// An answer with an error: {"error": {"message": …, "code": …}}.
struct HttpError : std::runtime_error {
  HttpError(int the_status, const std::string& message)
      : std::runtime_error(message), status(the_status) {}
  int status;
};

struct HttpRequest {
  std::string method;
  std::string path;                            // without the query
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

// The client's side of one connection. Writing to a client that is gone throws ClientGone.
struct ClientGone {};
class HttpReply {
 public:
  explicit HttpReply(int socket) : socket_(socket) {}

  void send(int status, std::string_view type, std::string_view body,
            const std::string& more_headers = "");
  // A body of unknown length: begin, chunks, end.
  void begin_chunked(std::string_view type);
  void send_chunk(std::string_view bytes);
  void end_chunked();
  bool begun() const { return begun_; }
  bool client_gone() const;  // without waiting

 private:
  void write(std::string_view bytes);
  const int socket_;
  bool begun_ = false;
};

class HttpServer {
 public:
  using Handler = std::function<void(const HttpRequest&, HttpReply&)>;

  // Listens; port 0 takes a free one. The handler is called from many threads at once; HttpError
  // becomes an answer. Throws std::runtime_error when the address cannot be had.
  HttpServer(const std::string& address, int port, Handler handler, const HttpLimits& limits = {});
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const { return port_; }
  void run();   // accepts until stop()
  void stop();  // from any thread; connections that are open go on
  // Waits until all connections are closed; false when `seconds` have passed before.
  bool wait_idle(int seconds);
  void drop_connections();  // cuts those that are open

 private:
  void serve(int socket);

  const Handler handler_;
  const HttpLimits limits_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> stopping_ = false;
  std::mutex mutex_;
  std::condition_variable idle_;
  std::set<int> connections_;  // sockets of clients
};

}  // namespace service
