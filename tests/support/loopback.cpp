// Preloaded into Debian's adbd by the tests. Three things that the daemon cannot be told from outside:
//   * bind() to every interface becomes bind() to 127.0.0.1, and to vsock fails: a test must not listen on the network;
//   * properties are read from the file in TEST_PROPERTIES, so that the daemon introduces itself as a phone does;
//   * init's control socket, over which a phone shows "Allow USB debugging?", is the descriptor in TEST_CONTROL_FD.
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <string>

namespace android {
namespace base {

std::string GetProperty(const std::string& key, const std::string& fallback) {
    const char* path = getenv("TEST_PROPERTIES");
    FILE* file = path ? fopen(path, "re") : nullptr;
    if (file == nullptr) return fallback;
    std::string answer = fallback;
    char line[1024];
    while (fgets(line, sizeof line, file) != nullptr) {
        char* equals = strchr(line, '=');
        if (equals == nullptr || key.compare(0, std::string::npos, line, equals - line) != 0) continue;
        equals[1 + strcspn(equals + 1, "\r\n")] = '\0';
        answer = equals + 1;
    }
    fclose(file);
    return answer;
}

}  // namespace base
}  // namespace android

extern "C" int android_get_control_socket(const char* name) {
    const char* number = getenv("TEST_CONTROL_FD");
    return number != nullptr && strcmp(name, "adbd") == 0 ? atoi(number) : -1;
}

extern "C" int bind(int fd, const struct sockaddr* address, socklen_t size) {
    using Bind = int (*)(int, const struct sockaddr*, socklen_t);
    static const Bind next = reinterpret_cast<Bind>(dlsym(RTLD_NEXT, "bind"));
    if (address != nullptr && address->sa_family == AF_VSOCK) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    if (address != nullptr && address->sa_family == AF_INET && size >= sizeof(sockaddr_in)) {
        sockaddr_in changed;
        memcpy(&changed, address, sizeof changed);
        changed.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return next(fd, reinterpret_cast<const sockaddr*>(&changed), sizeof changed);
    }
    if (address != nullptr && address->sa_family == AF_INET6 && size >= sizeof(sockaddr_in6)) {
        sockaddr_in6 changed;
        memcpy(&changed, address, sizeof changed);
        inet_pton(AF_INET6, "::ffff:127.0.0.1", &changed.sin6_addr);
        return next(fd, reinterpret_cast<const sockaddr*>(&changed), sizeof changed);
    }
    return next(fd, address, size);
}
