// What js-libp2p 3 takes for granted and Node 20 does not have.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new this((res, rej) => { [resolve, reject] = [res, rej] })
  return { promise, resolve, reject }
}
