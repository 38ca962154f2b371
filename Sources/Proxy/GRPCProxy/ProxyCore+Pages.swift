internal import Glibc
internal import Reactor

/// HTTP requests that are no calls: `/metrics`, `/health` and so on, over HTTP/1.1 and HTTP/2. The control thread makes the pages.
extension ProxyCore {
  /// A request over HTTP/2 that is not gRPC.
  func pageAsked(
    _ connection: inout ClientConnection, _ handle: Handle, _ stream: UInt32, endStream: Bool
  ) {
    let fields = clientSide.received
    let method = unsafe fields.value(of: .method).map { unsafe String(decoding: $0, as: UTF8.self) } ?? ""
    let target = unsafe fields.value(of: .path).map { unsafe String(decoding: $0, as: UTF8.self) } ?? "/"
    if method == "POST", !connection.isForPages {
      // As a gRPC server answers what does not say that it is gRPC.
      let type =
        unsafe fields.value(of: .contentType).map { unsafe String(decoding: $0, as: UTF8.self) } ?? ""
      return refuseContentType(&connection, stream, type)
    }
    // What a body may bring is of no interest; the stream ends when the page has been sent.
    ask(PageRequest(core: index, client: handle, stream: stream, method: method, target: target), &connection)
  }

  private func refuseContentType(_ connection: inout ClientConnection, _ stream: UInt32, _ type: String) {
    outgoing.removeAll()
    outgoing.append(":status", "415")
    outgoing.append("content-type", "application/grpc")
    outgoing.append("grpc-status", "3")
    let text = GRPCStatus(
      code: .invalidArgument, message: Array("invalid gRPC request content-type \"\(type)\"".utf8))
    text.appendMessage(to: outgoing, pool)
    connection.transport.http2.sendHeaders(stream, outgoing, endStream: true)
    connection.transport.http2.reset(stream, .noError)
  }

  private func ask(_ request: PageRequest, _ connection: inout ClientConnection) {
    shared.counters.add(.pages, core: index)
    guard shared.pageRequests[index].push(request) == nil else {
      let busy = AdminServer.Page(
        status: 503, contentType: "text/plain; charset=utf-8", body: Array("busy\n".utf8))
      return answer(&connection, PageReply(request, busy))
    }
    shared.group.control.wake()
  }

  /// The control thread has made a page.
  func deliver(_ reply: PageReply) {
    _ = clients.edit(reply.client) { connection in
      answer(&connection, reply)
      touch(&connection, reply.client)
    }
  }

  private func answer(_ connection: inout ClientConnection, _ reply: PageReply) {
    if reply.stream == 0 { return answerVisitor(&connection, reply) }
    outgoing.removeAll()
    unsafe "\(reply.page.status)".withUTF8Bytes { unsafe outgoing.append(":status", $0) }
    unsafe reply.page.contentType.withUTF8Bytes { unsafe outgoing.append("content-type", $0) }
    for (name, value) in reply.page.headers {
      unsafe name.lowercased().withUTF8Bytes { name in
        unsafe value.withUTF8Bytes { unsafe outgoing.append(name, $0, neverIndexed: false) }
      }
    }
    let isAll = reply.page.body.isEmpty || reply.isHead
    connection.transport.http2.sendHeaders(reply.stream, outgoing, endStream: isAll)
    guard !isAll else { return }
    let body = reply.page.body
    let taken = unsafe body.withUnsafeBytes {
      unsafe connection.transport.http2.send(reply.stream, $0, endStream: true)
    }
    if taken < body.count { keepRest(body[taken...], reply.stream, &connection, reply.client) }
  }

  /// A page larger than the client's window waits in a call of its own.
  private func keepRest(
    _ rest: ArraySlice<UInt8>, _ stream: UInt32, _ connection: inout ClientConnection, _ handle: Handle
  ) {
    var call = Call(client: handle, stream: stream, method: .unknown, now: now, pool)
    call.phase = .finishing
    call.isPage = true
    unsafe rest.withUnsafeBytes { unsafe call.response.append($0) }
    guard let id = calls.insert(call) else { return connection.transport.http2.reset(stream, .internalError) }
    connection.calls += 1
    connection.transport.http2.setUser(stream, id)
  }

  // MARK: HTTP/1.1

  func visitorSaid(
    _ connection: inout ClientConnection, _ handle: Handle, _ bytes: UnsafeRawBufferPointer
  ) {
    guard let visitor = connection.visitor, visitor.unread.count + bytes.count <= Limits.visitorBytes else {
      connection.phase = .closing
      return
    }
    if visitor.unread.isEmpty { visitor.idleSince = now }
    unsafe visitor.unread.append(contentsOf: bytes)
    if !visitor.isAnswering, !connection.transport.owesOutput { readVisitor(&connection, handle, visitor) }
  }

  private func readVisitor(
    _ connection: inout ClientConnection, _ handle: Handle, _ visitor: ClientConnection.Visitor
  ) {
    let unread = visitor.unread
    switch unsafe visitor.parser.parse(unread.span.bytes) {
    case .needMore: if connection.peerEnded { connection.phase = .closing }
    case .error(let status):
      write(
        &connection, ResponseWriter(),
        .init(status: status, contentType: "text/plain; charset=utf-8", body: []))
      connection.phase = .closing
    case .request(let head, let length):
      visitor.unread.removeFirst(length)
      visitor.parser = RequestParser()
      visitor.isAnswering = true
      visitor.writer = ResponseWriter(for: head)
      let target = head.query.map { "\(head.path)?\($0)" } ?? head.path
      ask(
        PageRequest(core: index, client: handle, stream: 0, method: head.method, target: target), &connection)
    }
  }

  private func answerVisitor(_ connection: inout ClientConnection, _ reply: PageReply) {
    guard let visitor = connection.visitor, visitor.isAnswering else { return }
    visitor.isAnswering = false
    write(&connection, visitor.writer, reply.page)
    let isLast = connection.peerEnded && visitor.unread.isEmpty
    if !visitor.writer.keepsAlive || isLast || drainDeadline != nil {
      connection.phase = .closing
    }
  }

  /// The socket took some of a page: the next request is read when the client has all of the one before, for
  /// a page is much longer than the request for it.
  func visitorTook(_ connection: inout ClientConnection, _ handle: Handle) {
    guard let visitor = connection.visitor, !visitor.isAnswering, !connection.transport.owesOutput else {
      return
    }
    visitor.idleSince = now
    if !visitor.unread.isEmpty { readVisitor(&connection, handle, visitor) }
  }

  private func write(
    _ connection: inout ClientConnection, _ writer: ResponseWriter, _ page: AdminServer.Page
  ) {
    var bytes: [UInt8] = []
    writer.append(
      status: page.status, contentType: page.contentType, headers: page.headers, date: Int64(time(nil)),
      body: page.body, to: &bytes)
    connection.transport.http2.output.append(bytes)
  }
}

extension String {
  func withUTF8Bytes<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R {
    var copy = self
    return copy.withUTF8 { unsafe body(UnsafeRawBufferPointer($0)) }
  }
}
