#include "http.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <system_error>
#include <thread>

#include "json.h"

namespace service {

namespace {

using Clock = std::chrono::steady_clock;

const char* reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 411:
      return "Length Required";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    default:
      return "Internal Server Error";
  }
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  return out;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// Reads one request from a socket.
class Reader {
 public:
  Reader(int socket, const HttpLimits& limits)
      : socket_(socket),
        limits_(limits),
        deadline_(Clock::now() + std::chrono::seconds(limits.request_seconds)) {}

  HttpRequest read() {
    std::size_t end = 0;
    while ((end = bytes_.find("\r\n\r\n")) == std::string::npos) {
      if (bytes_.size() > limits_.max_head_bytes) throw HttpError(431, "headers are too long");
      receive();
    }
    if (end > limits_.max_head_bytes) throw HttpError(431, "headers are too long");
    HttpRequest request = parse_head(std::string_view(bytes_).substr(0, end));
    const std::size_t length = body_length(request);
    while (bytes_.size() < end + 4 + length) receive();
    request.body = bytes_.substr(end + 4, length);
    return request;
  }

 private:
  void receive() {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - Clock::now()).count();
    pollfd waiting{socket_, POLLIN, 0};
    if (left <= 0 || ::poll(&waiting, 1, static_cast<int>(left)) <= 0) {
      throw HttpError(408, "the request did not arrive in time");
    }
    char buffer[4096];
    const ssize_t count = ::recv(socket_, buffer, sizeof buffer, 0);
    if (count <= 0) throw ClientGone();
    bytes_.append(buffer, static_cast<std::size_t>(count));
  }

  static HttpRequest parse_head(std::string_view head) {
    HttpRequest request;
    const std::size_t line_end = head.find("\r\n");
    const std::string_view line = head.substr(0, line_end);
    const std::size_t first = line.find(' ');
    const std::size_t second = line.rfind(' ');
    if (first == std::string_view::npos || second <= first ||
        !line.substr(second + 1).starts_with("HTTP/1.")) {
      throw HttpError(400, "expected an HTTP/1.1 request line");
    }
    request.method = line.substr(0, first);
    const std::string_view target = line.substr(first + 1, second - first - 1);
    request.path = target.substr(0, target.find('?'));
    head.remove_prefix(line_end == std::string_view::npos ? head.size() : line_end + 2);
    while (!head.empty()) {
      const std::size_t end = head.find("\r\n");
      const std::string_view header = head.substr(0, end);
      const std::size_t colon = header.find(':');
      if (colon == std::string_view::npos || colon == 0) {
        throw HttpError(400, "expected headers of the form name: value");
      }
      const bool is_new =
          request.headers.emplace(lower(header.substr(0, colon)), trimmed(header.substr(colon + 1)))
              .second;
      if (!is_new && lower(header.substr(0, colon)) == "content-length") {
        throw HttpError(400, "expected one Content-Length");
      }
      head.remove_prefix(end == std::string_view::npos ? head.size() : end + 2);
    }
    return request;
  }

  std::size_t body_length(const HttpRequest& request) const {
    if (request.headers.count("transfer-encoding") != 0) {
      throw HttpError(411, "expected a body with Content-Length, not in chunks");
    }
    const auto found = request.headers.find("content-length");
    if (found == request.headers.end()) {
      if (request.method == "POST") throw HttpError(411, "expected a Content-Length");
      return 0;
    }
    const std::string& text = found->second;
    std::size_t length = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), length);
    if (parsed.ec == std::errc::result_out_of_range || length > limits_.max_body_bytes) {
      throw HttpError(413, "expected a body of at most " + std::to_string(limits_.max_body_bytes) +
                               " bytes, got " + text);
    }
    if (parsed.ec != std::errc{} || parsed.ptr != text.data() + text.size()) {
      throw HttpError(400, "expected Content-Length to be a number");
    }
    return length;
  }

  const int socket_;
  const HttpLimits& limits_;
  const Clock::time_point deadline_;
  std::string bytes_;
};

void send_error(HttpReply& reply, int status, const std::string& message) {
  if (reply.begun()) return;  // too late: the client sees a body without its end
  const std::string body = "{\"error\": {\"message\": " + json_string(message) +
                           ", \"code\": " + std::to_string(status) + "}}\n";
  reply.send(status, "application/json", body, status == 503 ? "Retry-After: 1\r\n" : "");
}

void set_timeout(int socket, int option, int seconds) {
  const timeval limit{seconds, 0};
  ::setsockopt(socket, SOL_SOCKET, option, &limit, sizeof limit);
}

// What a client still sends is read, so that closing does not cut off the answer it has not read.
void end_gently(int socket) {
  ::shutdown(socket, SHUT_WR);
  set_timeout(socket, SO_RCVTIMEO, 1);
  char buffer[4096];
  for (int i = 0; i < 64 && ::recv(socket, buffer, sizeof buffer, 0) > 0; ++i) {
  }
}

}  // namespace

// --- HttpReply --------------------------------------------------------------------------------

void HttpReply::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) throw ClientGone();  // gone, or too slow for write_seconds
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

void HttpReply::send(int status, std::string_view type, std::string_view body,
                     const std::string& more_headers) {
  begun_ = true;
  std::string head = "HTTP/1.1 " + std::to_string(status) + " " + reason(status) +
                     "\r\nConnection: close\r\n" + more_headers + "Content-Type: ";
  head.append(type).append("\r\nContent-Length: ").append(std::to_string(body.size()));
  write(head.append("\r\n\r\n").append(body));
}

void HttpReply::begin_chunked(std::string_view type) {
  begun_ = true;
  std::string head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: ";
  write(head.append(type).append("\r\nTransfer-Encoding: chunked\r\n\r\n"));
}

void HttpReply::send_chunk(std::string_view bytes) {
  if (bytes.empty()) return;  // an empty chunk would end the body
  char size[20];
  std::snprintf(size, sizeof size, "%zx\r\n", bytes.size());
  write(std::string(size).append(bytes).append("\r\n"));
}

void HttpReply::end_chunked() { write("0\r\n\r\n"); }

bool HttpReply::client_gone() const {
  pollfd state{socket_, POLLRDHUP, 0};
  return ::poll(&state, 1, 0) > 0 && (state.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

// --- HttpServer -------------------------------------------------------------------------------

HttpServer::HttpServer(const std::string& address, int port, Handler handler,
                       const HttpLimits& limits)
    : handler_(std::move(handler)), limits_(limits) {
  const auto check = [&](bool ok, const char* what) {
    if (ok) return;
    const std::string why = std::strerror(errno);
    if (listener_ >= 0) ::close(listener_);
    throw std::runtime_error(address + ":" + std::to_string(port) + ": " + what + ": " + why);
  };
  sockaddr_in place{};
  place.sin_family = AF_INET;
  place.sin_port = htons(static_cast<std::uint16_t>(port));
  errno = EINVAL;
  check(::inet_pton(AF_INET, address.c_str(), &place.sin_addr) == 1, "not an IPv4 address");
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  check(listener_ >= 0, "no socket");
  const int on = 1;
  ::setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  check(::bind(listener_, reinterpret_cast<sockaddr*>(&place), sizeof place) == 0, "cannot bind");
  check(::listen(listener_, SOMAXCONN) == 0, "cannot listen");
  socklen_t size = sizeof place;
  ::getsockname(listener_, reinterpret_cast<sockaddr*>(&place), &size);
  port_ = ntohs(place.sin_port);
}

HttpServer::~HttpServer() {
  stop();
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [&] { return connections_.empty(); });
  ::close(listener_);
}

void HttpServer::run() {
  while (!stopping_) {
    const int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) {
      // Out of file descriptors, for instance: others will be closed.
      if (!stopping_) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      continue;
    }
    const int on = 1;
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    set_timeout(socket, SO_SNDTIMEO, limits_.write_seconds);
    {
      const std::lock_guard lock(mutex_);
      // Those beyond the limit get a 503 of their own, but not without end.
      if (std::ssize(connections_) >= 2 * limits_.max_connections) {
        ::close(socket);
        continue;
      }
      connections_.insert(socket);
    }
    const auto leave = [this, socket] {
      const std::lock_guard lock(mutex_);
      ::close(socket);
      connections_.erase(socket);
      if (connections_.empty()) idle_.notify_all();
    };
    try {
      std::thread([this, socket, leave] {
        serve(socket);
        leave();
      }).detach();
    } catch (const std::system_error&) {
      leave();  // no thread to be had
    }
  }
}

void HttpServer::stop() {
  stopping_ = true;
  ::shutdown(listener_, SHUT_RDWR);  // accept() returns
}

bool HttpServer::wait_idle(int seconds) {
  std::unique_lock lock(mutex_);
  return idle_.wait_for(lock, std::chrono::seconds(seconds), [&] { return connections_.empty(); });
}

void HttpServer::drop_connections() {
  const std::lock_guard lock(mutex_);
  for (const int socket : connections_) ::shutdown(socket, SHUT_RDWR);
}

void HttpServer::serve(int socket) {
  HttpReply reply(socket);
  try {
    try {
      {
        const std::lock_guard lock(mutex_);
        if (std::ssize(connections_) > limits_.max_connections) {
          throw HttpError(503, "too many connections");
        }
      }
      handler_(Reader(socket, limits_).read(), reply);
    } catch (const HttpError& error) {
      send_error(reply, error.status, error.what());
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
      send_error(reply, 500, "internal error");
    }
  } catch (const ClientGone&) {
    // Nobody is left to tell.
  }
  end_gently(socket);
}

}  // namespace service
